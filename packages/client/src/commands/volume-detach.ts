import { StorageError } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import { VOLUME_HEAD, volumeRow } from "./volume-view.js";

export const command: Command = {
  about: "Detach a volume from this host",
  args: [{ name: "VOLUME", about: "its id or exact name", completes: "volume" }],
  options: {
    force: { type: "boolean", about: "take it from whoever has it, even if it is mounted here" },
  },
  notes: ["A volume that is mounted here is unmounted with: libstorage volume unmount VOLUME"],
  async run(given, session) {
    const [name = ""] = given.args;
    const force = given.flag("force");
    const { service, volume } = await session.findVolume(name);
    const volumes = await session.hostVolumes(service);
    const mounted = (await volumes.mounted()).find((one) => one.volumeID === volume.id);
    if (mounted !== undefined && !force)
      throw new StorageError(
        "failed-precondition",
        `volume ${volume.id} (${volume.name}) is mounted at ${mounted.mountPoint}: unmount it with "libstorage volume unmount ${volume.id}"`,
        { volumeID: volume.id, mountPoint: mounted.mountPoint },
      );
    const detached =
      (await volumes.detach(volume.id, force, await session.longContext())) ?? volume;
    session.table(detached, VOLUME_HEAD, [volumeRow(service, detached)]);
  },
};
