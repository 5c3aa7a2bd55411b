/**
 * Volumes that are raw image files of a server on this host: a loop device with direct I/O, so that nothing is
 * kept twice in memory. The device is found by the file that the kernel says is behind it, never by its number.
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { placesOf } from "../executor/executor.js";
import type { Attached, ExecutorContext, Limits } from "../executor/executor.js";
import { usersOf } from "./block-use.js";
import { sysEntries, sysText } from "./kernel.js";
import { Deadline } from "./transport.js";
import type { BlockTransport } from "./transport.js";

/** The loop devices that a file as a whole is behind, such as `loop3`. A file that was removed has none. */
export async function loopsOn(sys: string, path: string): Promise<readonly string[]> {
  const names = (await sysEntries(join(sys, "class/block"))).filter((name) =>
    /^loop\d+$/.test(name),
  );
  const found = await Promise.all(
    names.map(async (name) => {
      const folder = join(sys, "class/block", name, "loop");
      const isIt = (await sysText(join(folder, "backing_file"))) === path;
      return isIt && (await sysText(join(folder, "offset"))) === "0" ? [name] : [];
    }),
  );
  return found.flat();
}

/** How long a device may take to go after it was told to. */
const GONE_MS = 30_000;
const LOOK_EVERY_MS = 50;

interface Image {
  readonly path: string;
  readonly isReadOnly: boolean;
}

/** @throws {StorageError} for what a loop device cannot show */
function imageOf({ volumeID, fields }: Attached): Image {
  const { path = "", format = "" } = fields;
  if (!path.startsWith("/"))
    throw new StorageError(
      "data-loss",
      `volume ${volumeID} is not used: its attachment names no image file; detach it and attach it again`,
      { volumeID },
    );
  if (format === "raw" || format === "iso") return { path, isReadOnly: format === "iso" };
  throw new StorageError(
    "failed-precondition",
    `volume ${volumeID} is a ${format} image, which a loop device cannot show; convert it to raw, or give ${path} to a virtual machine with its format`,
    { volumeID, path, format },
  );
}

function absent({ volumeID }: Attached, path: string): StorageError {
  return new StorageError(
    "failed-precondition",
    `volume ${volumeID} is not used: no loop device is on ${path}; is the volume's service on this host? Attach it again`,
    { volumeID, path },
  );
}

/**
 * Until then the kernel has the file open, and may write to it. It puts the end off while somebody has the device open
 * for a moment, and says nothing of that.
 */
async function gone(
  sys: string,
  name: string,
  path: string,
  volumeID: string,
  limits: Limits,
): Promise<void> {
  const deadline = new Deadline({ ...limits, timeoutMs: Math.min(limits.timeoutMs, GONE_MS) });
  while ((await loopsOn(sys, path)).includes(name)) {
    if (deadline.isOver) {
      const users = await usersOf(sys, name);
      const who = users.length > 0 ? users.join(", ") : "something that is not seen from here";
      throw new StorageError(
        "failed-precondition",
        `volume ${volumeID} has not left this host: /dev/${name} is being taken down, and ${who} still has it open; end that and try again`,
        { volumeID, device: `/dev/${name}` },
      );
    }
    await sleep(LOOK_EVERY_MS, undefined, { signal: limits.signal });
  }
}

export function loopTransport({ exec, ...context }: ExecutorContext): BlockTransport {
  const { sys } = placesOf({ exec, ...context });
  const limited = ({ signal, timeoutMs }: Limits) => ({ signal, timeoutMs });
  const deviceOn = async (attached: Attached): Promise<string> => {
    const { path } = imageOf(attached);
    const [name] = await loopsOn(sys, path);
    if (name === undefined) throw absent(attached, path);
    return name;
  };
  return {
    connects: true,
    async connect(attached, limits) {
      const { path, isReadOnly } = imageOf(attached);
      if ((await loopsOn(sys, path)).length > 0) return;
      const access = isReadOnly ? ["--read-only"] : [];
      const args = ["--find", "--direct-io=on", ...access, "--", path];
      await exec("losetup", args, limited(limits));
      // The kernel's word, not the tool's: a file below a link would have another name there.
      await deviceOn(attached);
    },
    async disconnect(attached, limits) {
      const { path = "" } = attached.fields;
      for (const name of await loopsOn(sys, path)) {
        const [user] = await usersOf(sys, name);
        if (user !== undefined)
          throw new StorageError(
            "failed-precondition",
            `volume ${attached.volumeID} cannot leave this host: ${user} uses /dev/${name}; stop that and try again`,
            { volumeID: attached.volumeID, device: `/dev/${name}`, user },
          );
        await exec("losetup", ["--detach", `/dev/${name}`], limited(limits));
        await gone(sys, name, path, attached.volumeID, limits);
      }
    },
    async prove(attached) {
      return { path: `/dev/${await deviceOn(attached)}` };
    },
    async rescan(attached, limits) {
      const name = await deviceOn(attached);
      await exec("losetup", ["--set-capacity", `/dev/${name}`], limited(limits));
    },
  };
}
