import { formatSize } from "@libstorage/model";
import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "Tell what a file of a format would take for an image's content",
  args: [
    { name: "VOLUME", about: "its id or exact name", completes: "volume" },
    { name: "FORMAT", about: "raw or qcow2", choices: ["raw", "qcow2"] },
  ],
  options: {},
  async run(given, session) {
    const [name = "", format = ""] = given.args;
    const { service, volume } = await session.findVolume(name, 0);
    const client = await session.client();
    const params = { service, volumeID: volume.id };
    const size = await client.volumeMeasure(params, { format }, await session.longContext());
    const row = [volume.id, format, formatSize(size.requiredBytes), formatSize(size.fullBytes)];
    session.table(size, ["VOLUME", "FORMAT", "NOW", "WHEN FULL"], [row]);
  },
};
