import type { Command } from "../cli/command.js";
import type { Session } from "../cli/session.js";

export const command: Command = {
  about: "Unmount a volume on this host and detach it",
  args: [{ name: "VOLUME", about: "its id or exact name", completes: "volume" }],
  options: { force: { type: "boolean", about: "unmount even if it has other uses" } },
  async run(given, session) {
    const [name = ""] = given.args;
    const service = await serviceOf(session, name);
    const volumes = await session.hostVolumes(service);
    const result = await volumes.unmount(
      name,
      { force: given.flag("force") },
      await session.longContext(),
    );
    session.print(result, () =>
      result.users === 0
        ? `${result.volumeID} is unmounted and detached`
        : `${result.volumeID} stays mounted: ${result.users} more ${result.users === 1 ? "use" : "uses"} (--force unmounts it anyway)`,
    );
  },
};

/** A volume that the server has lost can still be unmounted where its service is named. */
async function serviceOf(session: Session, name: string): Promise<string> {
  const { service } = await session.settings();
  return service ?? (await session.findVolume(name)).service;
}
