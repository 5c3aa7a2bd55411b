/** iscsiadm(8): records, login and logout, and what its exit codes mean. */
import pRetry from "p-retry";
import { StorageError } from "@libstorage/model";
import type { ErrorCode } from "@libstorage/model";
import { CommandError } from "../../executor/exec.js";
import type { Exec } from "../../executor/exec.js";
import { Deadline } from "../transport.js";
import { portalText } from "./door.js";
import type { IscsiDoor, Portal } from "./door.js";

/** @see iscsiadm(8), "EXIT STATUS" */
const EXIT = {
  sessionNotFound: 2,
  noMemory: 3,
  notConnected: 4,
  loginFailed: 5,
  database: 6,
  invalid: 7,
  timedOut: 8,
  internal: 9,
  noReply: 11,
  noModule: 12,
  noAccess: 13,
  sessionExists: 15,
  daemonFailed: 18,
  loginRefused: 19,
  noDaemon: 20,
  noRecords: 21,
  noSysfs: 22,
  noHost: 23,
  notAuthorized: 24,
  busy: 28,
  again: 29,
} as const;

/** Those after which another try may go better; every other one is a matter of how things are set. */
const PASSING: Readonly<Record<number, ErrorCode>> = {
  [EXIT.notConnected]: "unavailable",
  [EXIT.timedOut]: "deadline-exceeded",
  [EXIT.noReply]: "deadline-exceeded",
  [EXIT.busy]: "unavailable",
  [EXIT.again]: "unavailable",
};

const UNANSWERED: readonly number[] = [EXIT.timedOut, EXIT.noReply];

function exitCodeOf(error: unknown): number {
  return error instanceof CommandError ? error.exitCode : -1;
}

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
    case EXIT.notConnected:
      return "the connection failed: nothing listens at the portal, or a firewall is between; look at the server's exporter and at the network between the hosts";
    case EXIT.noReply:
      return "the portal took the connection, and the target did not answer on it in time: look at the server's load, at the network between the hosts (large frames that do not pass, for one), and at iscsid's log";
    case EXIT.timedOut:
      return "no answer in time: the portal is not reachable, or has no such target for this host; look at the network between the hosts, and at iscsid's log";
    case EXIT.loginFailed:
      return "the login failed: look at iscsid's log and at the target's, and try again";
    case EXIT.loginRefused:
      return `the target refused it${chap === "mutual" ? ", or could not prove itself: compare iscsi.chap.mutual.userName and .secretFile with the target's" : chap === "one-way" ? ": it may want mutual CHAP" : ""}`;
    case EXIT.notAuthorized:
      return chap === "none"
        ? "the target wants a password, or does not let this initiator name in"
        : "the target does not accept the name or the secret: compare iscsi.chap.userName and iscsi.chap.secretFile with the server's, and this host's name in /etc/iscsi/initiatorname.iscsi with the one that is attached";
    case EXIT.noDaemon:
    case EXIT.daemonFailed:
      return `iscsid does not answer; ${START_DAEMON}`;
    case EXIT.noModule:
      return `the kernel or iscsid has no transport for it: modprobe ${door.isIser ? "ib_iser" : "iscsi_tcp"}, then restart iscsid`;
    case EXIT.noAccess:
      return "this process may not talk to iscsid: run it as root";
    default:
      return hostReasonOf(exitCode);
  }
}

/** What this host's own open-iscsi lacks. */
function hostReasonOf(exitCode: number): string {
  switch (exitCode) {
    case EXIT.noMemory:
      return "this host has no memory left for it";
    case EXIT.database:
      return 'open-iscsi cannot read or write its records: look at the space and the rights in /etc/iscsi/nodes (or /var/lib/iscsi/nodes), and for broken ones with "iscsiadm -m node"';
    case EXIT.noRecords:
      return "its record went away meanwhile: something else on this host removes open-iscsi's records";
    case EXIT.invalid:
      return "open-iscsi does not take one of the settings that it was given; is it older than 2.1?";
    case EXIT.internal:
    case EXIT.noSysfs:
      return "iscsid or the kernel failed: look at iscsid's log and at the kernel's (dmesg)";
    case EXIT.noHost:
      return "the kernel made no iSCSI host for it: look at the kernel's log (dmesg)";
    case EXIT.busy:
    case EXIT.again:
      return "open-iscsi is busy with it: try again";
    default:
      return `iscsiadm ended with exit code ${exitCode}; iscsiadm(8) says what that is, and iscsid's log why`;
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
  return new StorageError(
    PASSING[error.exitCode] ?? "failed-precondition",
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

  /**
   * Tried again while nobody answers and there is time: a target takes logins one after another, so that of many
   * at once the last ones get no answer in time, and do with fewer.
   * @throws {CommandError} see `loginFailure`; logged in already is fine
   */
  async login(
    door: IscsiDoor,
    portal: Portal,
    { signal, timeoutMs, perTryMs }: Limit & { readonly perTryMs: number },
  ): Promise<void> {
    const deadline = new Deadline({ signal, timeoutMs });
    const fine = [EXIT.sessionExists];
    const unseen = [EXIT.noRecords];
    const once = (): Promise<void> =>
      this.#node(
        door,
        portal,
        ["--login"],
        { signal, timeoutMs: deadline.left() },
        { fine, unseen },
      );
    await pRetry(once, {
      signal,
      retries: Number.POSITIVE_INFINITY,
      minTimeout: 500,
      maxTimeout: 2000,
      randomize: true,
      shouldRetry: ({ error }) =>
        UNANSWERED.includes(exitCodeOf(error)) && deadline.left() > perTryMs,
    });
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
