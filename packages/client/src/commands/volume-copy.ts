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
    to: { type: "string", value: "SERVICE", about: "make it in this service; default is the same" },
    "allow-duplicate": { type: "boolean", about: "make it even if the name is taken" },
  },
  async run(given, session) {
    const [name = "", volumeName = ""] = given.args;
    const { service, volume } = await session.findVolume(name, 0);
    const to = given.text("to");
    const target = to ?? service;
    if (!given.flag("allow-duplicate")) await refuseTaken(session, target, volumeName);
    const client = await session.client();
    const opts = readOpts(given.texts("opt"));
    const copy = await client.volumeCopy(
      { service, volumeID: volume.id },
      {
        volumeName,
        ...(to !== undefined && { service: to }),
        ...(opts !== undefined && { opts }),
      },
      await session.longContext(),
    );
    session.table(copy, VOLUME_HEAD, [volumeRow(target, copy)]);
  },
};
