import type { Command } from "../cli/command.js";
import { UsageError } from "../cli/usage-error.js";
import { readSize } from "./values.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Make an image smaller",
  args: [{ name: "VOLUME", about: "its id or exact name", completes: "volume" }],
  options: {
    size: { type: "string", value: "SIZE", about: "the new size, such as 20G (needed)" },
    "discard-data": { type: "boolean", about: "even if there are data behind the new end" },
  },
  notes: ["Make the file system in it smaller first: what lies behind the new end is lost."],
  async run(given, session) {
    const [name = ""] = given.args;
    const text = given.text("size");
    if (text === undefined) throw new UsageError("--size is missing: the new size, such as 20G");
    const request = { size: readSize(text), discardData: given.flag("discard-data") };
    const { service, volume } = await session.findVolume(name, 0);
    const client = await session.client();
    const params = { service, volumeID: volume.id };
    const shrunk = await client.volumeShrink(params, request, await session.longContext());
    session.table(shrunk, VOLUME_HEAD, [volumeRow(service, shrunk)]);
  },
};
