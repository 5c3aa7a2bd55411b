/**
 * What to do about operations that were begun and have no end, after a crash or a failure that could not
 * be cleared: what was being made is removed, what was being taken away is taken away, a hold that was
 * being given is taken back. It needs no code per driver, because every driver method may be repeated.
 */
import { isSameInstance } from "@libstorage/model";
import type { OpContext } from "./driver.js";
import type { JournalEntry } from "./journal-entry.js";
import { lockKeyOf } from "./locks.js";
import { stored } from "./operations.js";
import type { Operations } from "./operations.js";
import type { Logger } from "./log.js";
import type { StorageService } from "./service.js";

type Recover = (service: StorageService, intent: JournalEntry, context: OpContext) => Promise<void>;

const removeVolume: Recover = async ({ driver }, { volumeID }, context) => {
  if (volumeID !== undefined) await driver.volumeRemove(volumeID, context);
};

const removeSnapshot: Recover = async ({ driver }, { snapshotID }, context) => {
  if (snapshotID !== undefined) await driver.snapshots?.snapshotRemove(snapshotID, context);
};

/** Takes the hold of the intent's instance away; with force and no such hold, every hold. */
const dropHold: Recover = async ({ driver }, { volumeID, holder, operation, force }, context) => {
  if (volumeID === undefined || holder === undefined) return;
  let volume = await driver.volumeInspect(volumeID, context);
  if (volume === undefined || volume.broken !== undefined) return;
  const own = volume.attachments.filter(({ instanceID }) => isSameInstance(instanceID, holder));
  const isForced = force === true && operation === "volumeDetach";
  for (const { instanceID } of own.length > 0 || !isForced ? own : volume.attachments)
    volume = await driver.volumeDetach(volume, instanceID, isForced, context);
};

const expandAgain: Recover = async ({ driver }, { volumeID, sizeBytes }, context) => {
  if (volumeID === undefined || sizeBytes === undefined) return;
  const volume = await driver.volumeInspect(volumeID, context);
  if (volume === undefined || volume.broken !== undefined) return;
  await driver.volumeExpand?.(volume, sizeBytes, context);
};

const RECOVERY: Readonly<Record<string, Recover>> = {
  volumeCreate: removeVolume,
  volumeCopy: removeVolume,
  volumeCreateFromSnapshot: removeVolume,
  volumeRemove: removeVolume,
  volumeSnapshot: removeSnapshot,
  snapshotCopy: removeSnapshot,
  snapshotRemove: removeSnapshot,
  volumeAttach: dropHold,
  volumeDetach: dropHold,
  volumeExpand: expandAgain,
};

/** Brings one open intent to its end; to be called under its lock. @throws what the driver throws */
async function recoverOne(
  intent: JournalEntry,
  service: StorageService,
  operations: Operations,
  log: Logger,
): Promise<void> {
  const { volumeID, snapshotID, operation, tx } = intent;
  const started = performance.now();
  const context = operations.context(log, AbortSignal.timeout(600_000));
  await RECOVERY[operation]?.(service, intent, context);
  if (snapshotID !== undefined) await service.inventory.rereadSnapshot(snapshotID, context);
  else if (volumeID !== undefined) await service.inventory.rereadVolume(volumeID, context);
  const { seq, time: _time, prev: _prev, phase: _phase, ...fields } = intent;
  const entry = await operations.journal.append({
    ...fields,
    phase: "recovered",
    intent: seq,
    ms: Math.round(performance.now() - started),
    error: {
      code: "aborted",
      message: `${operation} was cut short by a stop of the server or a failure, and has been cleared up`,
      data: {
        ...(volumeID !== undefined && { volumeID }),
        ...(snapshotID !== undefined && { snapshotID }),
      },
    },
  });
  operations.events.publish(entry);
  log.info({ op: operation, volumeID, snapshotID, tx }, "recovered");
}

/**
 * Recovers intents; those that cannot be recovered now stay open and are named in `operations.stuck`.
 * @returns how many were recovered
 */
export async function recover(
  intents: readonly JournalEntry[],
  services: ReadonlyMap<string, StorageService>,
  operations: Operations,
  log: Logger,
): Promise<number> {
  let recovered = 0;
  await Promise.all(
    intents.map(async (intent) => {
      const service = services.get(intent.service);
      // A service that is not configured now may come back: its intents wait for it.
      if (service === undefined) return;
      const key = lockKeyOf(service.name, intent.snapshotID ?? intent.volumeID ?? "");
      const finish = (): Promise<void> => recoverOne(intent, service, operations, log);
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
