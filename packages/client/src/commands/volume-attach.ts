import type { Command } from "../cli/command.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Attach a volume to this host",
  args: [{ name: "VOLUME", about: "its id or exact name", completes: "volume" }],
  options: { force: { type: "boolean", about: "cut off whoever has it now" } },
  notes: ["Attaching what is attached changes nothing. To use the volume, mount it instead."],
  async run(given, session) {
    const [name = ""] = given.args;
    const { service, volume } = await session.findVolume(name);
    const volumes = await session.hostVolumes(service);
    const attached = await volumes.attach(
      volume.id,
      given.flag("force"),
      await session.longContext(),
    );
    session.table(
      attached,
      [...VOLUME_HEAD, "DEVICE"],
      [[...volumeRow(service, attached), attached.attachments?.[0]?.deviceName ?? "-"]],
    );
  },
};
