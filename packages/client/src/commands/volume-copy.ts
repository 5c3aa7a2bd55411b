import type { Command } from "../cli/command.js";
import { OPT_OPTION, readOpts } from "./values.js";
import { refuseTaken } from "./volume-create.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Copy a volume with its data",
  args: [
    { name: "VOLUME", about: "its id or exact name", completes: "volume" },
    { name: "NAME", about: "the copy's name" },
  ],
  options: {
    opt: OPT_OPTION,
    "allow-duplicate": { type: "boolean", about: "make it even if the name is taken" },
  },
  async run(given, session) {
    const [name = "", volumeName = ""] = given.args;
    const { service, volume } = await session.findVolume(name, 0);
    if (!given.flag("allow-duplicate")) await refuseTaken(session, service, volumeName);
    const client = await session.client();
    const opts = readOpts(given.texts("opt"));
    const copy = await client.volumeCopy(
      { service, volumeID: volume.id },
      { volumeName, ...(opts !== undefined && { opts }) },
      await session.longContext(),
    );
    session.table(copy, VOLUME_HEAD, [volumeRow(service, copy)]);
  },
};
