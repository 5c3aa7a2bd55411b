/** iscsiadm(8): records, login and logout, and what its exit codes mean. */
import pRetry from "p-retry";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../executor/exec.js";
import type { Exec } from "../../executor/exec.js";
import { portalText } from "./door.js";
import type { IscsiDoor, Portal } from "./door.js";

/** @see iscsiadm(8), "EXIT STATUS" */
const EXIT = {
  sessionNotFound: 2,
  database: 6,
  timedOut: 8,
  daemonFailed: 12,
  sessionExists: 15,
  loginRefused: 19,
  noDaemon: 20,
  noRecords: 21,
  notAuthorized: 24,
} as const;

/**
 * It reads the records of all targets, whichever is meant, and fails when another process takes one of them away
 * meanwhile; or it does not see its own, while they are read.
 */
const DISTURBED_TIMES = 20;

interface Limit {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

export const START_DAEMON =
  "start it with: systemctl start iscsid (package open-iscsi; without systemd: modprobe iscsi_tcp && iscsid)";

function reasonOf(exitCode: number, door: IscsiDoor): string {
  const { chap } = door;
  switch (exitCode) {
    case EXIT.timedOut:
      return "no answer in time: the portal is not reachable, or has no such target for this host; look at the network between the hosts, and at iscsid's log";
    case EXIT.loginRefused:
      return `the target refused it${chap === "mutual" ? ", or could not prove itself: compare iscsi.chap.mutual.userName and .secretFile with the target's" : chap === "one-way" ? ": it may want mutual CHAP" : ""}`;
    case EXIT.notAuthorized:
      return chap === "none"
        ? "the target wants a password, or does not let this initiator name in"
        : "the target does not accept the name or the secret: compare iscsi.chap.userName and iscsi.chap.secretFile with the server's, and this host's name in /etc/iscsi/initiatorname.iscsi with the one that is attached";
    case EXIT.noDaemon:
    case EXIT.daemonFailed:
      return `iscsid does not answer; ${START_DAEMON}`;
    default:
      return `iscsiadm ended with exit code ${exitCode}`;
  }
}

/** The failure of a login, in words; another error is left as it is. */
export function loginFailure(error: unknown, door: IscsiDoor, portal: Portal): unknown {
  if (!(error instanceof CommandError)) return error;
  const where = `${door.iqn} at ${portalText(portal)}`;
  if (error.exitCode < 0)
    return new StorageError(
      error.code,
      `the login to ${where} was given up: ${error.message}`,
      error.data,
      { cause: error },
    );
  const isWaiting = error.exitCode === EXIT.timedOut;
  return new StorageError(
    isWaiting ? "deadline-exceeded" : "failed-precondition",
    `cannot log in to ${where}: ${reasonOf(error.exitCode, door)}`,
    { ...error.data, iqn: door.iqn, portal: portalText(portal) },
    { cause: error },
  );
}

export class Iscsiadm {
  readonly #exec: Exec;

  constructor(exec: Exec) {
    this.#exec = exec;
  }

  /** Makes the record of a portal; one that is there is made anew, without its credentials. */
  async makeRecord(door: IscsiDoor, portal: Portal, limit: Limit): Promise<void> {
    const iface = door.isIser ? ["--interface", "iser"] : [];
    await this.#node(door, portal, [...iface, "--op", "new"], limit);
  }

  /** @throws {CommandError} see `loginFailure`; logged in already is fine */
  async login(door: IscsiDoor, portal: Portal, limit: Limit): Promise<void> {
    const unseen = [EXIT.noRecords];
    await this.#node(door, portal, ["--login"], limit, { fine: [EXIT.sessionExists], unseen });
  }

  /** Fine when there is no session. */
  async logout(door: IscsiDoor, portal: Portal, limit: Limit): Promise<void> {
    const fine = [EXIT.noRecords, EXIT.sessionNotFound];
    await this.#node(door, portal, ["--logout"], limit, { fine });
  }

  /** Fine when there is none. */
  async removeRecord(door: IscsiDoor, portal: Portal, limit: Limit): Promise<void> {
    await this.#node(door, portal, ["--op", "delete"], limit, { fine: [EXIT.noRecords] });
  }

  async #node(
    { iqn }: IscsiDoor,
    portal: Portal,
    args: readonly string[],
    limit: Limit,
    {
      fine = [],
      unseen = [],
    }: { readonly fine?: readonly number[]; readonly unseen?: readonly number[] } = {},
  ): Promise<void> {
    const node = ["--mode", "node", "--targetname", iqn, "--portal", portalText(portal)];
    const disturbed = [EXIT.database, ...unseen];
    const exitCodeOf = (error: unknown): number =>
      error instanceof CommandError ? error.exitCode : -1;
    try {
      await pRetry(() => this.#exec("iscsiadm", [...node, ...args], limit), {
        retries: DISTURBED_TIMES,
        minTimeout: 20,
        maxTimeout: 500,
        randomize: true,
        shouldRetry: ({ error }) => disturbed.includes(exitCodeOf(error)),
      });
    } catch (error) {
      if (!fine.includes(exitCodeOf(error))) throw error;
    }
  }
}
