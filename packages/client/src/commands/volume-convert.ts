import type { Command } from "../cli/command.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Write an image anew in a format",
  args: [
    { name: "VOLUME", about: "its id or exact name", completes: "volume" },
    { name: "FORMAT", about: "raw or qcow2", choices: ["raw", "qcow2"] },
  ],
  options: {},
  notes: ["What there was stays until the new image is whole."],
  async run(given, session) {
    const [name = "", format = ""] = given.args;
    const { service, volume } = await session.findVolume(name, 0);
    const client = await session.client();
    const params = { service, volumeID: volume.id };
    const converted = await client.volumeConvert(params, { format }, await session.longContext());
    session.table(converted, VOLUME_HEAD, [volumeRow(service, converted)]);
  },
};
