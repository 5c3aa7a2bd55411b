/** The ways that there are, which of them this host goes, and which one a place has gone. */
import { StorageError } from "@libstorage/model";
import { placesOf } from "../../executor/executor.js";
import type { ExecutorContext } from "../../executor/executor.js";
import { usersOf } from "../block-use.js";
import type { Deadline } from "../transport.js";
import { pidAt, removeDaemon } from "./daemon.js";
import { fuseWay } from "./fuse-way.js";
import { KernelWay } from "./kernel-way.js";
import type { Place } from "./place.js";
import type { Way } from "./way.js";

const KEY = "nbd.client";

function waysOf(context: ExecutorContext): readonly [kernel: Way, fuse: Way] {
  return [new KernelWay(context), fuseWay(context)];
}

/**
 * The ways to try, the best one first.
 * @throws {StorageError} `failed-precondition` when this host cannot go the one that is set
 */
export async function chooseWays(
  { config }: Pick<ExecutorContext, "config">,
  [kernel, fuse]: readonly [kernel: Way, fuse: Way],
  deadline: Deadline,
): Promise<readonly Way[]> {
  const { value = "auto" } = config.find(KEY) ?? {};
  const wish = typeof value === "string" ? value.toLowerCase() : JSON.stringify(value);
  if (wish === "daemon") return [fuse];
  if (wish !== "auto" && wish !== "kernel")
    throw new StorageError(
      "invalid-argument",
      `${KEY} is "${wish}", and must be auto, kernel or daemon; correct this host's configuration`,
      { key: KEY },
    );
  const missing = await kernel.missing(deadline);
  if (missing === undefined) return wish === "kernel" ? [kernel] : [kernel, fuse];
  if (wish === "auto") return [fuse];
  throw new StorageError(
    "failed-precondition",
    `${KEY} is kernel, and this host cannot use the kernel's NBD client: ${missing}`,
    { key: KEY },
  );
}

export function waysFor(context: ExecutorContext, deadline: Deadline): Promise<readonly Way[]> {
  return chooseWays(context, waysOf(context), deadline);
}

/** The way by which the daemon of a place shows the disk now; undefined: no daemon lives there, or none does. */
export async function wayAt(context: ExecutorContext, place: Place): Promise<Way | undefined> {
  if (pidAt(place) === undefined) return undefined;
  for (const way of waysOf(context)) if (await way.isOpen(place)) return way;
  return undefined;
}

export interface PlaceDevice {
  /** Such as `loop3` or `nbd0`. */
  readonly device: string;
  readonly way: Way;
}

/** The devices of a place, whichever way it has gone, dead ones too. */
export async function devicesAt(
  context: ExecutorContext,
  place: Place,
): Promise<readonly PlaceDevice[]> {
  const found = await Promise.all(
    waysOf(context).map(async (way) =>
      (await way.devices(place)).map((device) => ({ device, way })),
    ),
  );
  return found.flat();
}

/**
 * Device, what the daemon shows, and daemon, in this order: each is flushed into the next. What is not there is fine.
 * @throws {StorageError} `failed-precondition` while the device is used
 */
export async function takeDown(
  context: ExecutorContext,
  place: Place,
  volumeID: string,
  deadline: Deadline,
): Promise<void> {
  const { sys } = placesOf(context);
  for (const { device, way } of await devicesAt(context, place)) {
    const [user] = await usersOf(sys, device);
    if (user !== undefined)
      throw new StorageError(
        "failed-precondition",
        `volume ${volumeID} cannot leave this host: ${user} uses /dev/${device}; stop that and try again`,
        { volumeID, device: `/dev/${device}`, user },
      );
    const limits = { signal: deadline.signal, timeoutMs: deadline.left(60_000) };
    // Where the way is broken already nothing can be saved.
    if ((await wayAt(context, place)) !== undefined)
      await context.exec("sync", ["--", `/dev/${device}`], limits);
    await way.down(device, deadline);
  }
  await removeDaemon(context, place, deadline);
}
