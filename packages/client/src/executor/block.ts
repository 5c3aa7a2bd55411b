/**
 * The executor of volumes that are block devices: of this host itself, or behind a transport. Their keys among
 * the local devices are the links below /dev/disk/by-id that name what a device is, never where it is.
 */
import { readdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import type { InstanceID } from "@libstorage/model";
import { growFileSystem, kindOf } from "../filesystem/file-system.js";
import type { VolumeDevice } from "../filesystem/file-system.js";
import {
  isNoted,
  isOfDevice,
  mountDevice,
  numbersOf,
  unmountDevice,
} from "../filesystem/device-mount.js";
import { tokenOf } from "../host/hold-token.js";
import { transportOf } from "../transports/index.js";
import { loopsOn } from "../transports/loop.js";
import { hostNameOf } from "./host-name.js";
import { placesOf } from "./executor.js";
import type { Attached, Executor, ExecutorContext, MountRecord, MountSource } from "./executor.js";
import { canonical, standingAt } from "./mount-point.js";
import type { MountHost } from "./mount-point.js";
import { readMountTable } from "./mount-table.js";

/** Links that name a device by what it says of itself; partitions are none of ours. */
const NAMING = /^(?:dm-uuid-(?:lvm|mpath)-|wwn-|scsi-|nbd-)[\w.:@+-]*$/i;
const UNFIT = /-part\d+$|::/;

export function openBlock(context: ExecutorContext, driver: string): Executor {
  const { exec, isRoot, warn } = context;
  const { dev, sys } = placesOf(context);
  const byID = join(dev, "disk/by-id");
  const host: MountHost = { exec, isRoot, busyMs: 5_000 };
  const name = hostNameOf(context, driver);
  const own: InstanceID = { id: name, driver, service: "" };

  const deviceOf = (attached: Attached, signal: AbortSignal): VolumeDevice => ({
    volumeID: attached.volumeID,
    turn: tokenOf(attached),
    exec,
    signal,
    ...(warn !== undefined && { warn }),
    prove: async () => (await transportOf(context, attached).prove(attached, signal)).path,
  });

  /** Of a device's link, or of the loop device on an image file. */
  const pathOf = async (device: string): Promise<string | undefined> => {
    // What is below /dev/shm is a file, as elsewhere.
    if (device.startsWith("/dev/") && !device.startsWith("/dev/shm/"))
      return realpath(join(dev, device.slice("/dev/".length))).catch(() => undefined);
    const [loop] = device.startsWith("/") ? await loopsOn(sys, device) : [];
    return loop === undefined ? undefined : `/dev/${loop}`;
  };

  /** The mount of a device by its link, or by what was noted of it when the link is gone. */
  const isMountOf = async (
    record: MountRecord,
    device: string,
    source: MountSource | undefined,
  ): Promise<boolean> => {
    if (source !== undefined && isNoted(record, source)) return true;
    const path = await pathOf(device);
    const numbers = path === undefined ? undefined : await numbersOf(path);
    return numbers !== undefined && (await isOfDevice(record, numbers));
  };

  return {
    driver,
    async instanceID() {
      return own;
    },
    likelyID: () => own,
    async localDevices() {
      const names = (await readdir(byID).catch(() => [])).filter(
        (one) => NAMING.test(one) && !UNFIT.test(one),
      );
      const found = await Promise.all(
        names.map(async (one): Promise<[string, string]> => [
          one.toLowerCase(),
          await realpath(join(byID, one)).catch(() => ""),
        ]),
      );
      return { driver, deviceMap: Object.fromEntries(found.filter(([, path]) => path !== "")) };
    },
    waits: true,
    connects: (attached) => transportOf(context, attached).connects,
    connect: (attached, limits) => transportOf(context, attached).connect(attached, limits),
    disconnect: (attached, limits) => transportOf(context, attached).disconnect(attached, limits),
    async expand(attached, mountPoint, limits) {
      await transportOf(context, attached).rescan(attached, limits);
      if (mountPoint === undefined) return "";
      const { path } = await transportOf(context, attached).prove(attached, limits.signal);
      const there = await standingAt(await canonical(mountPoint), (top) =>
        isMountOf(top, attached.device, undefined),
      );
      if (there.kind !== "mount") return "";
      const kind = kindOf(there.top.fsType);
      await growFileSystem(deviceOf(attached, limits.signal), kind, path, mountPoint);
      return `the ${kind.type} at ${mountPoint} was fitted to its device`;
    },
    async mount({ volumeID = "", device, fields = {}, options = "", signal, ...request }) {
      const attached: Attached = { volumeID, device, fields };
      return mountDevice(host, {
        device: deviceOf(attached, signal),
        mountPoint: request.mountPoint,
        options,
        ...(request.fileSystem !== undefined && { fileSystem: request.fileSystem }),
      });
    },
    unmount: (request) =>
      unmountDevice(
        host,
        request,
        async (top) =>
          request.device === undefined || isMountOf(top, request.device, request.source),
      ),
    async isMounted(device, mountPoint, source) {
      const there = await standingAt(await canonical(mountPoint), (top) =>
        isMountOf(top, device, source),
      );
      return there.kind === "mount";
    },
    async mountPointsOf(device) {
      const found: string[] = [];
      for (const record of await readMountTable())
        if (await isMountOf(record, device, undefined)) found.push(record.mountPoint);
      return found;
    },
  };
}
