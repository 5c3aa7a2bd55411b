import { resolve } from "node:path";
import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "Mount a volume on this host, attaching it first",
  args: [
    { name: "VOLUME", about: "its id or exact name", completes: "volume" },
    {
      name: "PATH",
      about: "where; default is its name below the setting mount.path",
      isOptional: true,
      completes: "folder",
    },
  ],
  options: {
    force: { type: "boolean", about: "take the volume from another host" },
    "mount-options": { type: "string", value: "OPTIONS", about: "as for mount -o, such as ro" },
    "fs-type": {
      type: "string",
      value: "TYPE",
      about: "the file system for a blank volume: ext4, xfs or btrfs",
      choices: ["ext4", "xfs", "btrfs"],
    },
    create: { type: "boolean", about: "create the volume if there is none; needs --service" },
  },
  notes: [
    "Prints the folder to use. Each mount counts as one use; the last unmount unmounts.",
    "Who is not root gets a symbolic link instead of a mount.",
  ],
  async run(given, session) {
    const [name = "", path] = given.args;
    const create = given.flag("create");
    // With --create the volume need not exist, so the service has to be known.
    const found = create ? undefined : await session.findVolume(name);
    const service = found?.service ?? (await session.serviceName());
    const volumes = await session.hostVolumes(service);
    const mountOptions = given.text("mount-options");
    const fsType = given.text("fs-type");
    const mounted = await volumes.mount(
      found?.volume.id ?? name,
      {
        create,
        ...(given.flag("force") && { preempt: true }),
        ...(path !== undefined && { mountPoint: resolve(path) }),
        ...(mountOptions !== undefined && { mountOptions }),
        ...(fsType !== undefined && { fsType }),
      },
      await session.longContext(),
    );
    if (mounted.kind === "link" && !mounted.wasThere)
      session.note("not root: made a symbolic link instead of a mount");
    if (mounted.users > 1) session.note(`the volume has ${mounted.users} uses on this host now`);
    session.print(mounted, () => mounted.path);
  },
};
