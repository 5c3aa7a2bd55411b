/** The vfs executor: volumes that are folders of the server's host, sections 17 and 18 of the contract. */
import * as fs from "node:fs/promises";
import { booleanOf, StorageError } from "@libstorage/model";
import type { Found, InstanceID } from "@libstorage/model";
import { readDeviceFile } from "./device-file.js";
import type { Executor, ExecutorContext, Mounted } from "./executor.js";
import {
  canonical,
  isFolderMounted,
  mountFolder,
  mountPointsOfFolder,
  unmountFolder,
} from "./folder-mount.js";
import type { MountHost } from "./folder-mount.js";
import { checkVolumeFolder } from "./volume-folder.js";

const NAME = { driver: "vfs", service: "" } as const;

export function openVfs(context: ExecutorContext): Executor {
  const { config, hostName, libFolder, exec, isRoot } = context;
  const root = textOf(config.find("vfs.root"), `${libFolder}/vfs`);
  // Two hosts of one name would be taken for one, so the name can be set.
  const name = textOf(config.find("vfs.instanceID.name"), hostName);
  const usesFields = booleanOf(config.find("vfs.instanceid.use.fields")?.value) === true;
  const host: MountHost = { exec, isRoot, busyMs: 5_000 };
  const devices = (): ReturnType<typeof readDeviceFile> => readDeviceFile(`${root}/dev`);
  const likely: InstanceID = {
    id: name,
    ...NAME,
    ...(usesFields && { fields: { region: "east" } }),
  };
  return {
    driver: "vfs",
    async instanceID() {
      return usesFields ? likely : { id: "", ...NAME, metadata: name };
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
        driver: "vfs",
        deviceMap: Object.fromEntries(lines.map((line) => [line.device, line.mountPoint])),
      };
    },
    waits: true,
    async mount(request) {
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
    unmount: (request) => unmountFolder(host, request),
    isMounted: isFolderMounted,
    mountPointsOf: mountPointsOfFolder,
  };
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
