/**
 * The vfs executor: volumes that are folders of the server's host, sections 17 and 18 of the contract.
 * Subvolumes are folders, too, so that it serves btrfs under its own name.
 */
import * as fs from "node:fs/promises";
import { booleanOf, StorageError } from "@libstorage/model";
import type { Found, InstanceID } from "@libstorage/model";
import { readDeviceFile } from "./device-file.js";
import type { Executor, ExecutorContext, Mounted } from "./executor.js";
import {
  isFolderMounted,
  mountFolder,
  mountPointsOfFolder,
  unmountFolder,
} from "./folder-mount.js";
import { hostNameOf } from "./host-name.js";
import { canonical } from "./mount-point.js";
import type { MountHost } from "./mount-point.js";
import { isNfsMounted, mountNfs, NFS, nfsMountPoints, unmountNfs } from "../transports/nfs.js";
import { checkVolumeFolder } from "./volume-folder.js";

/** @param driver its name, and the scope of its keys */
export function openVfs(context: ExecutorContext, driver: "vfs" | "btrfs" = "vfs"): Executor {
  const { config, libFolder, exec, isRoot } = context;
  const root = textOf(config.find(`${driver}.root`), `${libFolder}/${driver}`);
  const name = hostNameOf(context, driver);
  const usesFields = booleanOf(config.find(`${driver}.instanceid.use.fields`)?.value) === true;
  const host: MountHost = { exec, isRoot, busyMs: 5_000 };
  const devices = (): ReturnType<typeof readDeviceFile> => readDeviceFile(`${root}/dev`);
  const scope = { driver, service: "" };
  const likely: InstanceID = {
    id: name,
    ...scope,
    ...(usesFields && { fields: { region: "east" } }),
  };
  return {
    driver,
    async instanceID() {
      return usesFields ? likely : { id: "", ...scope, metadata: name };
    },
    likelyID: () => likely,
    async nextDevice() {
      const free = (await devices()).find(({ hasEquals }) => !hasEquals);
      if (free === undefined)
        throw new StorageError("resource-exhausted", "no available devices", {
          file: `${root}/dev`,
        });
      return free.device;
    },
    async localDevices() {
      const lines = await devices();
      return {
        driver,
        deviceMap: Object.fromEntries(lines.map((line) => [line.device, line.mountPoint])),
      };
    },
    waits: true,
    async mount(request) {
      const { volumeID = "", device, fields = {}, signal } = request;
      if (fields["exporter"] === NFS)
        return mountNfs(host, { volumeID, device, fields }, request, signal);
      // A name out of the device file is what clients of the reference send; there is no such device.
      const isName = (await devices()).some(({ device }) => device === request.device);
      if (isName && request.volumeID === undefined) return makeFolder(request.mountPoint);
      if (isName)
        throw new StorageError(
          "failed-precondition",
          `volume ${request.volumeID} was attached to this host by another client, as ${request.device}, which is no device: detach it and attach it again`,
          { volumeID: request.volumeID, device: request.device },
        );
      if (request.volumeID === undefined)
        throw new StorageError(
          "invalid-argument",
          `${request.device} is not in ${root}/dev; mount volumes with "libstorage volume mount"`,
        );
      await checkVolumeFolder(request.volumeID, request.device);
      return mountFolder(host, request);
    },
    unmount: (request) =>
      isRemote(request.device)
        ? unmountNfs(host, request.device, request, context.warn)
        : unmountFolder(host, request),
    isMounted: (device, mountPoint) =>
      isRemote(device) ? isNfsMounted(device, mountPoint) : isFolderMounted(device, mountPoint),
    mountPointsOf: (device) =>
      isRemote(device) ? nfsMountPoints(device) : mountPointsOfFolder(device),
  };
}

/** `HOST:/PATH` comes over NFS; a folder of this host begins with a slash. */
function isRemote(device: string | undefined): device is string {
  return device !== undefined && !device.startsWith("/") && device.includes(":/");
}

function textOf(found: Found | undefined, fallback: string): string {
  return typeof found?.value === "string" && found.value !== "" ? found.value : fallback;
}

/** All that the reference's mount does. */
async function makeFolder(path: string): Promise<Mounted> {
  const mountPoint = await canonical(path);
  const made = await fs.mkdir(mountPoint, { recursive: true, mode: 0o755 });
  return { mountPoint, kind: "folder", wasThere: made === undefined };
}
