/** Volumes that stand still while snapshots are taken: because nobody writes, or because they are frozen. */
import { isSameInstance, StorageError } from "@libstorage/model";
import type { Volume } from "@libstorage/model";
import { writes } from "./capabilities.js";
import { holdOf, nodeIDOf } from "./holders.js";
import type { NodeContext } from "./node-context.js";
import { CsiError } from "./status.js";

export interface Stillness {
  readonly volume: Volume;
  /** `nobody`: nobody has it. `readers`: who has it only reads. `freeze`: to be frozen at `path`. */
  readonly by: "nobody" | "readers" | "freeze";
  readonly path?: string;
}

/** No file system is kept frozen for longer, whatever happens. */
export const MOST_FROZEN_MS = 30_000;
const TOOL_MS = 20_000;

/**
 * Why a volume stands still, or can be made to.
 * @throws {CsiError} FAILED_PRECONDITION, saying who writes and what can be done
 */
export async function stillness(
  context: NodeContext,
  volume: Volume,
  mayFreeze: boolean,
  signal: AbortSignal,
): Promise<Stillness> {
  const holders = volume.attachments ?? [];
  if (holders.length === 0) return { volume, by: "nobody" };
  const writers = holders.filter((one) => {
    const hold = holdOf(one);
    return hold === undefined || writes(hold.mode, hold.readonly);
  });
  const [writer] = writers;
  if (writer === undefined) return { volume, by: "readers" };
  const refused = (why: string): CsiError =>
    new CsiError(
      "FAILED_PRECONDITION",
      `volume ${volume.id} is in use on ${nodeIDOf(writer)}, so its snapshot cannot be of the same moment as the others': ${why}; or set consistency=each to have each of its own moment`,
    );
  if (!mayFreeze) throw refused("set freeze=true to freeze its file system meanwhile");
  const isHere = await isThisNode(context, writer.instanceID, signal);
  if (writers.length > 1 || !isHere)
    throw refused("only a plugin on that node, in mode all, can freeze it");
  const record = await context.records.read(volume.id);
  if (record?.phase !== "staged") throw refused("it is not staged by this plugin");
  if (record.access === "block") throw refused("it is used as a device, which cannot be frozen");
  if (!(await context.storage.hasOwnFileSystem(record.stagingPath)))
    throw refused("it is a folder, whose file system others use, too");
  if (await context.storage.isLogicalVolume(record.stagingPath))
    throw refused(
      "it is a logical volume of this very host, whose file system LVM freezes for each snapshot by itself, one after the other; use the volumes from another node",
    );
  return { volume, by: "freeze", path: record.stagingPath };
}

async function isThisNode(
  { backend, settings }: NodeContext,
  holder: Parameters<typeof isSameInstance>[0] | null,
  signal: AbortSignal,
): Promise<boolean> {
  if (holder === null || settings.mode !== "all") return false;
  return isSameInstance((await backend.identity(signal)).instanceID, holder);
}

interface Freeze {
  readonly stands: readonly Stillness[];
  /** How long the file systems are kept frozen at most. */
  readonly limitMs: number;
  readonly signal: AbortSignal;
}

/**
 * Runs `act` while the volumes that have to be frozen are. Each one's record says so before it is, so that a
 * plugin which is killed here thaws them when it starts again. The caller has the volumes for itself, so that
 * nobody else writes their records.
 * @param drop removes what `act` made too late; the file systems do not wait for that
 */
export async function frozenDuring<T>(
  context: NodeContext,
  { stands, limitMs, signal }: Freeze,
  act: () => Promise<T>,
  drop: (made: T) => Promise<void>,
): Promise<T> {
  const { records, storage } = context;
  const paths = stands.flatMap(({ volume, path }) =>
    path === undefined ? [] : [{ id: volume.id, path }],
  );
  // A limit by AbortSignal.timeout would go with the garbage: `any` does not hold it.
  const timeUp = new AbortController();
  const timer = setTimeout(() => timeUp.abort(), limitMs);
  const limit = AbortSignal.any([signal, timeUp.signal]);
  let acting: Promise<T> | undefined;
  const inTime = async (): Promise<T> => {
    try {
      for (const { id, path } of paths) {
        const record = await records.read(id);
        if (record !== undefined) await records.write({ ...record, isFrozen: true });
        await storage.freeze(path, limit);
      }
      acting = act();
      return await (paths.length === 0
        ? acting
        : Promise.race([acting, whenAborted(limit, signal, limitMs)]));
    } finally {
      clearTimeout(timer);
      for (const { id, path } of paths) await thaw(context, id, path);
    }
  };
  try {
    return await inTime();
  } catch (error) {
    // What the server has begun it ends, and what comes of it now is of another moment.
    const late = await acting?.then(
      (made) => ({ made }),
      () => undefined,
    );
    if (late !== undefined) await drop(late.made);
    throw error;
  }
}

/** Notes that it is thawed only when it is: whoever comes next tries again. */
async function thaw({ records, storage, log }: NodeContext, id: string, path: string) {
  const isThawed = await storage.thaw(path, AbortSignal.timeout(TOOL_MS)).then(
    () => true,
    (error: unknown) => {
      log.error({ volumeId: id, error: String(error) }, `run fsfreeze --unfreeze ${path}`);
      return false;
    },
  );
  const record = isThawed ? await records.read(id) : undefined;
  if (record !== undefined) await records.write({ ...record, isFrozen: false });
}

/** @param call ends the whole call; what it waited for is told by whoever ended it */
function whenAborted(limit: AbortSignal, call: AbortSignal, limitMs: number): Promise<never> {
  return new Promise((_resolve, reject) => {
    const end = (): void =>
      reject(
        call.aborted
          ? new StorageError("cancelled", "the call ended while its snapshots were taken")
          : new CsiError(
              "DEADLINE_EXCEEDED",
              `the snapshots took longer than the ${limitMs / 1000} s for which file systems are kept frozen, so they are of no one moment and are removed; look at what the server is busy with, then try again`,
            ),
      );
    if (limit.aborted) end();
    else limit.addEventListener("abort", end, { once: true });
  });
}

/** What an earlier plugin left frozen. */
export async function thawLeftovers(context: NodeContext): Promise<void> {
  const { records, log } = context;
  for (const id of await records.volumeIDs()) {
    const record = await records.read(id).catch(() => undefined);
    if (record?.isFrozen !== true) continue;
    log.warn({ volumeId: id }, "the file system was left frozen, and is thawed");
    await thaw(context, id, record.stagingPath);
  }
}
