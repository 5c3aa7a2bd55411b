import type { Command } from "../cli/command.js";
import { OPT_OPTION, readOpts } from "./values.js";
import { SNAPSHOT_HEAD, snapshotRow } from "./volume-view.js";

export const command: Command = {
  about: "Make a snapshot of a volume",
  args: [
    { name: "VOLUME", about: "its id or exact name", completes: "volume" },
    { name: "NAME", about: "the snapshot's name" },
  ],
  options: { opt: OPT_OPTION },
  async run(given, session) {
    const [name = "", snapshotName = ""] = given.args;
    const { service, volume } = await session.findVolume(name, 0);
    const client = await session.client();
    const opts = readOpts(given.texts("opt"));
    const snapshot = await client.volumeSnapshot(
      { service, volumeID: volume.id },
      { snapshotName, ...(opts !== undefined && { opts }) },
      await session.longContext(),
    );
    session.table(snapshot, SNAPSHOT_HEAD, [snapshotRow(service, snapshot)]);
  },
};
