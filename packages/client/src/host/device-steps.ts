/** Steps of a host's volumes that concern their devices and file systems. Their caller has the volume's lock. */
import type { CallContext, Volume } from "@libstorage/model";
import type { Attached, Executor, Mounted, MountRequest } from "../executor/executor.js";
import { openExecutor } from "../executor/index.js";
import { failing } from "./mount-errors.js";
import type { HostService } from "./host-service.js";
import type { LocalMounts } from "./local-mounts.js";
import type { MountRecordFile } from "./mount-records.js";
import { MOUNT_OPTIONS } from "./mount-requests.js";
import type { MountOptions } from "./mount-requests.js";
import type { OperationSettings } from "./operation-settings.js";
import { takenBack } from "./undo.js";
import type { Undo } from "./undo.js";

const EXPAND_MS = 15 * 60_000;

/**
 * Options of the volume's creation stand in its fields.
 * @param formatting see `WantedFileSystem`
 */
export function howToMount(
  { fields = {} }: Volume,
  { fsType, mountOptions }: MountOptions,
  { create }: OperationSettings,
  formatting: (isBegun: boolean) => Promise<unknown>,
): Pick<MountRequest, "fileSystem" | "options"> {
  const asked = fsType ?? fields["fstype"] ?? "";
  const options = mountOptions ?? fields[MOUNT_OPTIONS];
  const type = asked === "" ? create.fsType : asked;
  return {
    fileSystem: { type, isAsked: asked !== "", formatting },
    ...(options !== undefined && { options }),
  };
}

/** Attaches and connects, or takes all of it back. What was attached before stays so. */
export async function attachAlone(
  host: HostService,
  volumeID: string,
  force: boolean,
  context: CallContext,
): Promise<Volume> {
  const had = await host.ownAttachment(await host.inspect(volumeID, context), context);
  const undo: Undo[] = [];
  try {
    return await host.attach(volumeID, force, context, (step) => undo.push(step));
  } catch (error) {
    throw had === undefined ? await takenBack(error, undo) : error;
  }
}

/** @returns what was done, in words; undefined when this host does not have the volume */
export async function expandHere(
  { connections }: HostService,
  local: LocalMounts,
  volumeID: string,
  context: CallContext,
): Promise<string | undefined> {
  const record = await local.records.read(volumeID);
  const known = record ?? (await connections.read(volumeID));
  const executor = known && openExecutor(known.driver, local.executors);
  if (known === undefined || executor?.expand === undefined) return undefined;
  const stands = record !== undefined && (await local.stands(record));
  const limits = {
    signal: context.signal ?? new AbortController().signal,
    timeoutMs: EXPAND_MS,
  };
  return executor.expand(known, stands ? record.mountPoint : undefined, limits);
}

/** Where a volume is mounted. */
export interface Place {
  readonly mountPoint: string;
  /** Whether the folder there goes with the mount. */
  readonly ownsFolder: boolean;
}

type Known = Pick<MountRecordFile, "device" | "fields" | "source">;

export async function takeAway(
  executor: Executor | undefined,
  places: readonly Place[],
  { device, fields, source }: Known,
  context: CallContext,
): Promise<void> {
  const signal = context.signal ?? new AbortController().signal;
  const known = { device, fields, ...(source !== undefined && { source }), signal };
  for (const { mountPoint, ownsFolder } of places)
    await executor?.unmount?.({ ...known, mountPoint, removeFolder: ownsFolder });
}

/** Mounts what is attached, and notes the way back. */
export async function mountThere(
  executor: Executor,
  { volumeID, device, fields }: Attached,
  { mountPoint, ownsFolder }: Place,
  how: Pick<MountRequest, "fileSystem" | "options">,
  undo: Undo[],
  { signal = new AbortController().signal }: CallContext,
): Promise<Mounted> {
  if (executor.mount === undefined) throw failing.noMount(volumeID, executor.driver);
  // A mount that failed may stand all the same, so the way back looks for itself.
  let wasThere = false;
  undo.push(async (undoing) => {
    const back = { mountPoint, device, fields, removeFolder: ownsFolder, signal: undoing };
    // Where one cannot even look, nothing of ours stands.
    const stands = await executor.isMounted?.(device, mountPoint).catch(() => false);
    if (!wasThere && stands === true) await executor.unmount?.(back);
  });
  const mounted = await executor.mount({ volumeID, device, fields, mountPoint, signal, ...how });
  wasThere = mounted.wasThere;
  return mounted;
}
