/** Sessions with a target: made, waited for, and ended. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { placesOf } from "../../executor/executor.js";
import type { ExecutorContext } from "../../executor/executor.js";
import { withHostLock } from "../../host/host-lock.js";
import { pathPart } from "../../host/path-part.js";
import { readInitiatorName } from "../../host/initiator-name.js";
import type { Deadline } from "../transport.js";
import { portalText } from "./door.js";
import type { IscsiDoor, Portal } from "./door.js";
import { Iscsiadm, loginFailure } from "./iscsiadm.js";
import { clearEmptyRecords, recordLines, writeRecord } from "./node-record.js";
import { credentialsFor } from "./secrets.js";
import { isSamePortal, sessionsOf } from "./sessions.js";
import type { IscsiSession } from "./sessions.js";

const LOOK_EVERY_MS = 100;
/** Open-iscsi's own default. Writes to a volume whose server is gone wait as long. */
const REPLACEMENT_SECONDS = 120;

export function lockOfTarget(libFolder: string, iqn: string): string {
  return join(libFolder, "iscsi", `${pathPart(iqn)}.lock`);
}

/** One process of this host at a time works on the sessions of a target. */
export async function targetLock<T>(
  context: ExecutorContext,
  { iqn }: IscsiDoor,
  deadline: Deadline,
  act: () => Promise<T>,
): Promise<T> {
  const { exec, libFolder } = context;
  const file = lockOfTarget(libFolder, iqn);
  const { signal } = deadline;
  return withHostLock(exec, file, { waitMs: deadline.left(), signal }, act);
}

/**
 * A session through every portal, or through the first that answers.
 * @throws {StorageError} the reason why none could be had
 */
export async function logInto(
  context: ExecutorContext,
  door: IscsiDoor,
  everyPortal: boolean,
  deadline: Deadline,
): Promise<readonly IscsiSession[]> {
  const found: IscsiSession[] = [];
  const failures: unknown[] = [];
  for (const [index, portal] of door.portals.entries()) {
    // What is left is shared by those that are to be tried.
    const portalsLeft = door.portals.length - index;
    try {
      found.push(
        await sessionThrough(context, door, portal, deadline.left() / portalsLeft, deadline),
      );
      if (!everyPortal) return found;
    } catch (error) {
      failures.push(error);
    }
  }
  if (found.length === 0) throw failureOf(failures);
  for (const failure of failures)
    context.warn?.(
      `${failure instanceof Error ? failure.message : String(failure)}; the volume has one path less`,
    );
  return found;
}

function failureOf(failures: readonly unknown[]): unknown {
  const [first, ...others] = failures;
  if (others.length === 0 || !(first instanceof StorageError)) return first;
  const texts = failures.map((one) => (one instanceof Error ? one.message : String(one)));
  return new StorageError(first.code, [...new Set(texts)].join("; "), first.data, { cause: first });
}

async function sessionThrough(
  context: ExecutorContext,
  door: IscsiDoor,
  portal: Portal,
  timeoutMs: number,
  deadline: Deadline,
): Promise<IscsiSession> {
  const { sys } = placesOf(context);
  const there = async (): Promise<IscsiSession | undefined> =>
    (await sessionsOf(sys, door.iqn)).find((one) => isSamePortal(one.portal, portal));
  const before = await there();
  if (before?.state === "LOGGED_IN") return before;
  // A session that iscsid is about to make again is its own to make; another login would be refused.
  if (before === undefined) await login(context, door, portal, timeoutMs, deadline);
  for (;;) {
    const session = await there();
    if (session?.state === "LOGGED_IN") return session;
    if (deadline.isOver)
      throw new StorageError(
        "deadline-exceeded",
        `the session with ${door.iqn} at ${portalText(portal)} is ${session?.state ?? "gone"} and did not come back in time; look at the network between the hosts, and at iscsid's log`,
        { iqn: door.iqn, portal: portalText(portal) },
      );
    await sleep(LOOK_EVERY_MS);
  }
}

async function login(
  context: ExecutorContext,
  door: IscsiDoor,
  portal: Portal,
  timeoutMs: number,
  deadline: Deadline,
): Promise<void> {
  await readInitiatorName();
  const credentials = await credentialsFor(context.config, door);
  const tool = new Iscsiadm(context.exec);
  const limit = { signal: deadline.signal, timeoutMs: 15_000 };
  // Iscsid goes on trying after iscsiadm was killed: it is told to give up before that.
  const loginSeconds = Math.max(2, Math.min(15, Math.floor(timeoutMs / 4000)));
  const times = { loginSeconds, retries: TRIES - 1, replacementSeconds: replacementOf(context) };
  // What comes before the colon is the naming authority that the server's exporters use.
  await clearEmptyRecords(placesOf(context), door.iqn.slice(0, door.iqn.indexOf(":") + 1));
  try {
    await tool.makeRecord(door, portal, limit);
    await writeRecord(placesOf(context), door, portal, recordLines(credentials, times));
    const perTryMs = TRIES * loginSeconds * 1000;
    await tool.login(door, portal, { signal: deadline.signal, timeoutMs, perTryMs });
  } catch (error) {
    await forget(context, door, portal);
    throw loginFailure(error, door, portal);
  }
}

/** How often open-iscsi itself tries, before iscsiadm says that nobody answers. */
const TRIES = 2;

function replacementOf({ config }: ExecutorContext): number {
  const value = Number(config.find("iscsi.replacementTimeout")?.value);
  return Number.isInteger(value) && value > 0 ? value : REPLACEMENT_SECONDS;
}

/** Half a login leaves a session that nobody waits for, and a record with the secret. */
async function forget(context: ExecutorContext, door: IscsiDoor, portal: Portal): Promise<void> {
  const tool = new Iscsiadm(context.exec);
  const limit = { signal: AbortSignal.timeout(40_000), timeoutMs: 20_000 };
  await tool.logout(door, portal, limit).catch(() => {});
  await tool.removeRecord(door, portal, limit).catch(() => {});
}

/** Ends the sessions, and forgets every portal. @throws {StorageError} when a session stays */
export async function logOut(
  context: ExecutorContext,
  door: IscsiDoor,
  sessions: readonly IscsiSession[],
  deadline: Deadline,
): Promise<void> {
  const tool = new Iscsiadm(context.exec);
  const limit = (): { signal: AbortSignal; timeoutMs: number } => ({
    signal: deadline.signal,
    timeoutMs: deadline.left(40_000),
  });
  const portals = [...door.portals];
  for (const { portal } of sessions)
    if (portal !== undefined && !portals.some((one) => isSamePortal(one, portal)))
      portals.push(portal);
  for (const portal of portals) {
    if (sessions.length > 0) await tool.logout(door, portal, limit());
    await tool.removeRecord(door, portal, limit());
  }
  const left = await sessionsOf(placesOf(context).sys, door.iqn);
  if (left.length > 0)
    throw new StorageError(
      "failed-precondition",
      `this host is still logged in to ${door.iqn} (${left.map(({ name, state }) => `${name}: ${state}`).join(", ")}); log out with: iscsiadm -m node -T ${door.iqn} --logout`,
      { iqn: door.iqn },
    );
}
