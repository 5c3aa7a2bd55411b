/**
 * What to do about operations that were begun and have no end, after a crash or a failure that could not
 * be cleared: what was being made is removed, what was being taken away is taken away, a hold that was
 * being given is taken back. It needs no code per driver, because every driver method may be repeated.
 */
import type { ErrorData } from "@libstorage/model";
import { heldBy } from "./access.js";
import type { OpContext, VolumeRecord } from "./driver.js";
import type { EntryFields, JournalEntry } from "./journal-entry.js";
import { lockKeyOfEntry } from "./locks.js";
import { stored } from "./operations.js";
import type { Operations } from "./operations.js";
import type { Logger } from "./log.js";
import { revertAgain } from "./reverts.js";
import type { StorageService } from "./service.js";

/** What the operation answers now that it is done, or undefined when it was taken back. */
type Recovered = VolumeRecord | null | undefined;

type Recover = (
  service: StorageService,
  intent: JournalEntry,
  context: OpContext,
) => Promise<Recovered>;

const unmakeVolume: Recover = async ({ driver }, { volumeID }, context) => {
  if (volumeID === undefined) return undefined;
  const made = await driver.volumeInspect(volumeID, context);
  // Someone got in since: then it was finished, and the journal has lost its end.
  if (made !== undefined && (made.attachments.length > 0 || made.epoch > 0)) return made;
  await driver.volumeRemove(volumeID, context);
  return undefined;
};

const unmakeSnapshot: Recover = async ({ driver }, { snapshotID }, context) => {
  if (snapshotID !== undefined) await driver.snapshots?.snapshotRemove(snapshotID, context);
  return undefined;
};

const removeVolume: Recover = async ({ driver, holds }, { volumeID }, context) => {
  if (volumeID === undefined) return null;
  const volume = await driver.volumeInspect(volumeID, context);
  // Some may still hold what shall go.
  if (volume !== undefined && volume.broken === undefined)
    await holds.cutAll(volume, volume.attachments, true, context);
  await driver.volumeRemove(volumeID, context);
  return null;
};

const removeSnapshot: Recover = async (service, intent, context) => {
  await unmakeSnapshot(service, intent, context);
  return null;
};

const takeHoldBack: Recover = async ({ driver, holds }, { volumeID, holder }, context) => {
  if (volumeID === undefined || holder === undefined) return undefined;
  const volume = await driver.volumeInspect(volumeID, context);
  if (volume === undefined || volume.broken !== undefined) return undefined;
  await holds.cut(volume, holder, false, context);
  return undefined;
};

/** Takes the hold of the intent's instance away; with force and no such hold, every hold. */
const detachAgain: Recover = async (
  { driver, holds },
  { volumeID, holder, force = false },
  context,
) => {
  if (volumeID === undefined || holder === undefined) return undefined;
  const volume = await driver.volumeInspect(volumeID, context);
  if (volume === undefined || volume.broken !== undefined) return undefined;
  const own = heldBy(volume, holder);
  const cut = own !== undefined ? [own] : force ? volume.attachments : [];
  return holds.cutAll(volume, cut, force, context);
};

const expandAgain: Recover = async ({ driver, holds }, { volumeID, sizeBytes }, context) => {
  if (volumeID === undefined || sizeBytes === undefined) return undefined;
  const volume = await driver.volumeInspect(volumeID, context);
  if (volume === undefined || volume.broken !== undefined) return undefined;
  return holds.expand(volume, sizeBytes, context);
};

const shrinkAgain: Recover = async ({ driver }, intent, context) => {
  const { volumeID, sizeBytes, force = false } = intent;
  if (volumeID === undefined || sizeBytes === undefined) return undefined;
  const volume = await driver.volumeInspect(volumeID, context);
  if (volume === undefined || volume.broken !== undefined) return undefined;
  return driver.images?.shrink(volume, sizeBytes, force, context);
};

const revertVolumeAgain: Recover = async ({ driver }, { volumeID, from }, context) => {
  if (volumeID === undefined || from === undefined) return undefined;
  return revertAgain(driver, { volumeID, from }, context);
};

const updateAgain: Recover = async ({ driver }, { volumeID, change }, context) => {
  if (volumeID === undefined || change === undefined) return undefined;
  const volume = await driver.volumeInspect(volumeID, context);
  if (volume === undefined || volume.broken !== undefined) return undefined;
  return driver.volumeUpdate({ ...volume, ...change }, context);
};

/** Brings what is exported of a volume to what its record says, whether that was written or not. */
const exportAgain: Recover = async ({ driver, holds }, { volumeID }, context) => {
  if (volumeID === undefined) return undefined;
  const volume = await driver.volumeInspect(volumeID, context);
  if (volume !== undefined && volume.broken === undefined) await holds.exportAgain(volume, context);
  return undefined;
};

const RECOVERY: Readonly<Record<string, Recover>> = {
  volumeCreate: unmakeVolume,
  volumeCopy: unmakeVolume,
  volumeCreateFromSnapshot: unmakeVolume,
  volumeUpload: unmakeVolume,
  volumeRemove: removeVolume,
  volumeSnapshot: unmakeSnapshot,
  snapshotCopy: unmakeSnapshot,
  snapshotRemove: removeSnapshot,
  volumeAttach: takeHoldBack,
  volumeDetach: detachAgain,
  exportAdd: takeHoldBack,
  exportRemove: detachAgain,
  exportUpdate: exportAgain,
  exportHide: exportAgain,
  volumeExpand: expandAgain,
  volumeShrink: shrinkAgain,
  volumeRevert: revertVolumeAgain,
  volumeUpdate: updateAgain,
};

/**
 * Brings an operation that is about no service to its end, or takes it back.
 * @returns what it answers now that it is done, or undefined when it was taken back
 */
export type HostRecovery = (intent: JournalEntry, context: OpContext) => Promise<unknown>;

/** By operation. */
export type HostRecoveries = Readonly<Record<string, HostRecovery>>;

export interface RecoveryOptions {
  /** For operations that are about files of this host, and no service. */
  readonly host?: HostRecoveries;
  readonly services: ReadonlyMap<string, StorageService>;
  readonly operations: Operations;
  readonly log: Logger;
}

function subjectOf({ volumeID, snapshotID, path }: JournalEntry): ErrorData {
  return {
    ...(path !== undefined && { path }),
    ...(volumeID !== undefined && { volumeID }),
    ...(snapshotID !== undefined && { snapshotID }),
  };
}

/** Brings one open intent to its end; to be called under its lock. @throws what the driver throws */
async function recoverOne(
  intent: JournalEntry,
  service: StorageService | undefined,
  { operations, host, log }: RecoveryOptions,
): Promise<void> {
  const { volumeID, snapshotID, path, operation, tx } = intent;
  const started = performance.now();
  const context = operations.context(log, AbortSignal.timeout(600_000));
  const result =
    service === undefined
      ? await host?.[operation]?.(intent, context)
      : await RECOVERY[operation]?.(service, intent, context);
  if (snapshotID !== undefined) await service?.inventory.rereadSnapshot(snapshotID, context);
  else if (volumeID !== undefined) await service?.inventory.rereadVolume(volumeID, context);
  const text = "was cut short by a stop of the server or a failure, and has been cleared up";
  await closeIntent(intent, operations, {
    ms: Math.round(performance.now() - started),
    ...(result === undefined
      ? {
          error: {
            code: "aborted",
            message: `${operation} ${text}`,
            data: subjectOf(intent),
          },
        }
      : { result }),
  });
  log.info({ op: operation, volumeID, snapshotID, path, tx }, "recovered");
}

async function closeIntent(
  intent: JournalEntry,
  operations: Operations,
  outcome: Pick<EntryFields, "ms" | "result" | "error">,
): Promise<void> {
  const { seq, time: _time, prev: _prev, phase: _phase, counters: _counters, ...fields } = intent;
  const entry = { ...fields, ...outcome, phase: "recovered", intent: seq } as const;
  operations.events.publish(await operations.journal.append(entry));
}

/**
 * Closes intents of a journal that has lost entries, without touching anything: their ends may be among
 * the lost, and what was made and used since must not be taken back.
 */
export async function abandon(
  intents: readonly JournalEntry[],
  { operations, log }: RecoveryOptions,
): Promise<void> {
  for (const intent of intents) {
    const { operation, volumeID, snapshotID } = intent;
    await closeIntent(intent, operations, {
      error: {
        code: "data-loss",
        message: `whether ${operation} was done is not known, because the journal has lost entries; look at the volume`,
        data: subjectOf(intent),
      },
    });
    log.warn({ op: operation, volumeID, snapshotID }, "left as it is: the journal lost entries");
  }
}

/**
 * Recovers intents; those that cannot be recovered now stay open and are tried again.
 * @returns how many were recovered
 */
export async function recover(
  intents: readonly JournalEntry[],
  options: RecoveryOptions,
): Promise<number> {
  const { services, operations, log } = options;
  let recovered = 0;
  await Promise.all(
    intents.map(async (intent) => {
      const service = services.get(intent.service);
      // A service that is not configured now may come back: its intents wait for it.
      if (service === undefined && intent.service !== "") return;
      const key = lockKeyOfEntry(intent);
      const finish = (): Promise<void> => recoverOne(intent, service, options);
      try {
        await operations.locks.run(key, finish);
        recovered += 1;
      } catch (error) {
        operations.stuck.add({ intent, key, finish });
        log.error(
          { error: stored(error), op: intent.operation, volumeID: intent.volumeID },
          "could not be recovered; it will be tried again",
        );
      }
    }),
  );
  return recovered;
}
