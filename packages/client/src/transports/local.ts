/** Volumes of a server that runs on this host: the device is there, under a link that is never given twice. */
import { realpath } from "node:fs/promises";
import { basename, join } from "node:path";
import { StorageError } from "@libstorage/model";
import { placesOf } from "../executor/executor.js";
import type { Attached, ExecutorContext } from "../executor/executor.js";
import { sysText } from "./kernel.js";
import type { BlockTransport } from "./transport.js";

const LINK = /^\/dev\/disk\/by-id\/(?<kind>dm-uuid-)?(?<id>[\w.:=@+-]+)$/;

function refused(volumeID: string, device: string, why: string): StorageError {
  return new StorageError("failed-precondition", `volume ${volumeID} is not used: ${why}`, {
    volumeID,
    device,
  });
}

export function localTransport(context: ExecutorContext): BlockTransport {
  const { sys, dev } = placesOf(context);
  const nothing = async (): Promise<void> => {};
  return {
    connects: false,
    connect: nothing,
    disconnect: nothing,
    // The server has grown the device itself.
    rescan: nothing,
    async prove({ volumeID, device }: Attached) {
      const groups = LINK.exec(device)?.groups;
      if (groups?.["kind"] === undefined)
        throw refused(
          volumeID,
          device,
          `${device} is no link of /dev/disk/by-id that names the volume itself`,
        );
      const link = join(dev, device.slice("/dev/".length));
      const path = await realpath(link).catch(() => undefined);
      if (path === undefined)
        throw refused(
          volumeID,
          device,
          `this host has no ${device}; is the volume's service on this host, and is the volume active (lvs)?`,
        );
      const name = basename(path);
      const uuid = await sysText(join(sys, "class/block", name, "dm/uuid"));
      // The link may lag behind a number that was given again.
      if (uuid !== groups["id"])
        throw refused(
          volumeID,
          device,
          `${device} leads to ${path}, which says it is ${uuid === "" ? "none of device-mapper's" : uuid}; run "udevadm settle" and try again`,
        );
      return { path };
    },
  };
}
