import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "Look whether an image is sound, and mend leaks if asked to",
  args: [{ name: "VOLUME", about: "its id or exact name", completes: "volume" }],
  options: {
    repair: { type: "boolean", about: "give leaked space back; nothing else is touched" },
  },
  async run(given, session) {
    const [name = ""] = given.args;
    const { service, volume } = await session.findVolume(name, 0);
    const client = await session.client();
    const found = await client.volumeCheck(
      { service, volumeID: volume.id },
      { repair: given.flag("repair") },
      await session.longContext(),
    );
    const { status, corruptions, leaks, fixed } = found;
    const row = [volume.id, status, String(corruptions), String(leaks), String(fixed)];
    session.table(found, ["VOLUME", "STATUS", "CORRUPT", "LEAKS", "FIXED"], [row]);
  },
};
