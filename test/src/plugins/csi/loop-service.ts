/**
 * A service whose volumes are real block devices on any host: loop devices, under links as device-mapper's have
 * them, in folders that stand for /dev and /sys. Records and holders are the vfs driver's. For tests of what is
 * done with devices where there is no LVM.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readlinkSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import * as v from "valibot";
import { defineDriver, DRIVERS } from "@libstorage/server";
import type { DriverModule, StorageDriver } from "@libstorage/server";

/** The client's executor for devices goes by the driver's name. */
export const LOOP_DRIVER = "lvm-iscsi";

function run(tool: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(tool, args, { encoding: "utf8" });
  if (status === 0) return stdout.trim();
  throw new Error(`${tool} ${args.join(" ")}: ${error?.message ?? stderr}`);
}

/** Why there can be none here, or false. It is tried out. */
export function loopServiceMissing(): string | false {
  if (process.geteuid?.() !== 0) return "only root can make loop devices";
  for (const tool of ["losetup", "mkfs.ext4", "blkid", "wipefs", "fsfreeze"])
    if (spawnSync(tool, ["--version"]).error !== undefined) return `${tool} is not installed`;
  return spawnSync("losetup", ["--find"]).status === 0 ? false : "no loop device is free";
}

export class LoopDevices {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
    for (const one of ["images", "snapshots", "dev/disk/by-id", "sys/class/block"])
      mkdirSync(join(folder, one), { recursive: true });
  }

  get places(): { readonly dev: string; readonly sys: string } {
    return { dev: join(this.folder, "dev"), sys: join(this.folder, "sys") };
  }

  image(id: string): string {
    return join(this.folder, "images", id);
  }

  snapshot(id: string): string {
    return join(this.folder, "snapshots", id);
  }

  link(id: string): string {
    return join(this.places.dev, "disk/by-id", `dm-uuid-LOOP-${id}`);
  }

  /** The device of a volume. */
  device(id: string): string {
    return readlinkSync(this.link(id));
  }

  /** Sparse. @param from another image */
  open(id: string, sizeBytes: number, from?: string): void {
    const image = this.image(id);
    rmSync(image, { force: true });
    if (from === undefined) writeFileSync(image, "");
    else run("cp", "--sparse=always", from, image);
    truncateSync(image, sizeBytes);
    const device = run("losetup", "--find", "--show", image);
    const about = join(this.places.sys, "class/block", basename(device), "dm");
    mkdirSync(about, { recursive: true });
    writeFileSync(join(about, "uuid"), `LOOP-${id}\n`);
    symlinkSync(device, this.link(id));
  }

  grow(id: string, sizeBytes: number): void {
    truncateSync(this.image(id), sizeBytes);
    run("losetup", "--set-capacity", this.device(id));
  }

  close(id: string): void {
    let device: string;
    try {
      device = this.device(id);
    } catch {
      return;
    }
    run("losetup", "--detach", device);
    rmSync(this.link(id));
    rmSync(join(this.places.sys, "class/block", basename(device)), { recursive: true });
    rmSync(this.image(id), { force: true });
  }

  cut(id: string, snapshot: string): void {
    run("cp", "--sparse=always", this.image(id), this.snapshot(snapshot));
  }
}

const Config = v.strictObject({ root: v.string() });

/** The driver, and its devices as soon as it is open. */
/** A service "devices" below a folder, for a server's configuration. */
export function loopServiceAt(root: string): string {
  return `      devices:\n        driver: ${LOOP_DRIVER}\n        ${LOOP_DRIVER}:\n          root: ${root}`;
}

export function loopDriver(): { readonly module: DriverModule; devices(): LoopDevices } {
  let opened: LoopDevices | undefined;
  const devices = (): LoopDevices => {
    if (opened === undefined) throw new Error("the service is not open");
    return opened;
  };
  const module = defineDriver({
    name: LOOP_DRIVER,
    config: Config,
    async open({ root }, context) {
      const records = await DRIVERS.vfs.open(
        { root: join(root, "records"), quota: "off" },
        context,
      );
      opened = new LoopDevices(root);
      return over(records, opened);
    },
  });
  return { module, devices };
}

/** The records' driver with devices of its own. */
function over(records: StorageDriver, devices: LoopDevices): StorageDriver {
  const { snapshots } = records;
  if (snapshots === undefined) throw new Error("vfs has snapshots");
  const driver: Partial<StorageDriver> = {
    type: "block",
    async volumeCreate(volume, context) {
      const made = await records.volumeCreate(volume, context);
      devices.open(made.id, made.sizeBytes);
      return made;
    },
    async volumeRemove(id, context) {
      devices.close(id);
      await records.volumeRemove(id, context);
    },
    volumeAttach(volume, attachment, context) {
      const deviceName = `/dev/disk/by-id/dm-uuid-LOOP-${volume.id}`;
      return records.volumeAttach(volume, { ...attachment, deviceName }, context);
    },
    async volumeCopy(source, volume, context) {
      const made = await records.volumeCreate(volume, context);
      devices.open(made.id, made.sizeBytes, devices.image(source.id));
      return made;
    },
    async volumeExpand(volume, sizeBytes, context) {
      devices.grow(volume.id, sizeBytes);
      return (await records.volumeExpand?.(volume, sizeBytes, context)) ?? volume;
    },
    snapshots: {
      async snapshotCreate(source, snapshot, context) {
        const made = await snapshots.snapshotCreate(source, snapshot, context);
        devices.cut(source.id, made.id);
        return made;
      },
      async snapshotRemove(id, context) {
        rmSync(devices.snapshot(id), { force: true });
        await snapshots.snapshotRemove(id, context);
      },
      async volumeCreateFromSnapshot(source, volume, context) {
        const made = await records.volumeCreate(volume, context);
        devices.open(made.id, made.sizeBytes, devices.snapshot(source.id));
        return made;
      },
    },
    // Nobody tells of changes: there are none but ours.
    watch: () => () => {},
    attachToken: () => "",
  };
  return new Proxy(records, {
    get(target, name) {
      if (Object.hasOwn(driver, name)) return Reflect.get(driver, name);
      const member: unknown = Reflect.get(target, name);
      return typeof member === "function" ? (member.bind(target) as unknown) : member;
    },
    has: (target, name) => name in target,
  });
}
