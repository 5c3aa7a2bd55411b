import type { Command } from "../cli/command.js";
import { OPT_OPTION, readOpts } from "./values.js";
import { SNAPSHOT_HEAD, snapshotRow } from "./volume-view.js";

export const command: Command = {
  about: "Copy a snapshot",
  args: [
    { name: "SNAPSHOT", about: "its id or exact name", completes: "snapshot" },
    { name: "NAME", about: "the copy's name" },
  ],
  options: {
    destination: {
      type: "string",
      value: "ID",
      about: "where the copy goes, for drivers that copy elsewhere",
    },
    opt: OPT_OPTION,
  },
  async run(given, session) {
    const [from = "", snapshotName = ""] = given.args;
    const { service, snapshot } = await session.findSnapshot(from);
    const client = await session.client();
    const opts = readOpts(given.texts("opt"));
    const copy = await client.snapshotCopy(
      { service, snapshotID: snapshot.id },
      {
        snapshotName,
        destinationID: given.text("destination") ?? "",
        ...(opts !== undefined && { opts }),
      },
      await session.longContext(),
    );
    session.table(copy, SNAPSHOT_HEAD, [snapshotRow(service, copy)]);
  },
};
