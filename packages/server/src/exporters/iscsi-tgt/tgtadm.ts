/** tgtadm: the commands of tgtd, through the socket of one daemon. See tgtadm(8). */
import { fileURLToPath } from "node:url";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { CommandError } from "../../core/exec.js";
import type { ExecResult } from "../../core/exec.js";
import { parseAccounts, parseConnections, parsePortals, parseTargets } from "./dump.js";
import type { TgtTarget } from "./dump.js";

/** A command of tgtd takes milliseconds, but waits for the devices behind it. */
const LIMIT_MS = 30_000;

/** tgtadm's exit code when nobody answers: ENOTCONN. */
const AWAY = 107;

const ACCOUNT_PROGRAM = fileURLToPath(new URL("account-main.js", import.meta.url));

export class TgtAdm {
  /** As in `TGT_IPC_SOCKET`: the socket is this with `.0` at its end. */
  readonly socket: string;

  constructor(socket: string) {
    this.socket = socket;
  }

  async #run(context: OpContext, op: string, mode: string, ...args: string[]): Promise<ExecResult> {
    const all = ["--lld", "iscsi", "--op", op, "--mode", mode, ...args];
    return context.exec("tgtadm", all, context.signal, {
      env: { TGT_IPC_SOCKET: this.socket },
      timeoutMs: LIMIT_MS,
    });
  }

  async targets(context: OpContext): Promise<readonly TgtTarget[]> {
    return parseTargets((await this.#run(context, "show", "target")).stdout);
  }

  async portals(context: OpContext): Promise<readonly string[]> {
    return parsePortals((await this.#run(context, "show", "portal")).stdout);
  }

  async accounts(context: OpContext): Promise<readonly string[]> {
    return parseAccounts((await this.#run(context, "show", "account")).stdout);
  }

  async connections(context: OpContext, tid: number) {
    const { stdout } = await this.#run(context, "show", "conn", "--tid", String(tid));
    return parseConnections(stdout);
  }

  async makeTarget(context: OpContext, tid: number, iqn: string): Promise<void> {
    await this.#run(context, "new", "target", "--tid", String(tid), "--targetname", iqn);
  }

  async makeLun(context: OpContext, tid: number, lun: number, path: string): Promise<void> {
    const lunArgs = ["--tid", String(tid), "--lun", String(lun)];
    await this.#run(context, "new", "logicalunit", ...lunArgs, "--backing-store", path);
  }

  async setLun(
    context: OpContext,
    tid: number,
    lun: number,
    values: Readonly<Record<string, string>>,
  ): Promise<void> {
    const text = Object.entries(values).map(([name, value]) => `${name}=${value}`);
    const lunArgs = ["--tid", String(tid), "--lun", String(lun)];
    await this.#run(context, "update", "logicalunit", ...lunArgs, "--params", text.join(","));
  }

  /** Answers once the threads that wrote to its device have ended. */
  async removeLun(context: OpContext, tid: number, lun: number): Promise<void> {
    await this.#run(context, "delete", "logicalunit", "--tid", String(tid), "--lun", String(lun));
  }

  async removeTarget(context: OpContext, tid: number): Promise<void> {
    await this.#run(context, "delete", "target", "--force", "--tid", String(tid));
  }

  async allow(context: OpContext, tid: number, initiator: string): Promise<void> {
    const args = ["--tid", String(tid), "--initiator-name", initiator];
    await this.#run(context, "bind", "target", ...args).catch(unless("already exists"));
  }

  async disallow(context: OpContext, tid: number, rule: string): Promise<void> {
    const kind = /^(?:iqn|eui|naa)\./.test(rule) ? "--initiator-name" : "--initiator-address";
    const args = ["--tid", String(tid), kind, rule];
    await this.#run(context, "unbind", "target", ...args).catch(unless("does not exist"));
  }

  async endConnection(context: OpContext, tid: number, sid: number, cid: number): Promise<void> {
    const args = ["--tid", String(tid), "--sid", String(sid), "--cid", String(cid)];
    // It may end by itself before it is ended.
    await this.#run(context, "delete", "conn", ...args).catch(ifRefused());
  }

  async makeAccount(context: OpContext, user: string, password: string): Promise<void> {
    await context.exec(process.execPath, [ACCOUNT_PROGRAM, `${this.socket}.0`], context.signal, {
      input: JSON.stringify({ user, password }),
      timeoutMs: LIMIT_MS,
    });
  }

  /** A target that had only this account asks for none from then on: nobody may come to it meanwhile. */
  async removeAccount(context: OpContext, user: string): Promise<void> {
    await this.#run(context, "delete", "account", "--user", user).catch(unless("can't find"));
  }

  async bindAccount(
    context: OpContext,
    tid: number,
    user: string,
    isOutgoing: boolean,
  ): Promise<void> {
    const args = ["--tid", String(tid), "--user", user, ...(isOutgoing ? ["--outgoing"] : [])];
    await this.#run(context, "bind", "account", ...args).catch(unless("already exists"));
  }

  /** Ends the daemon; only one without targets does so. */
  async endDaemon(context: OpContext): Promise<void> {
    await this.#run(context, "delete", "system");
  }
}

/** Whether a command failed because no daemon answers at its socket. */
export function isAway(error: unknown): boolean {
  return error instanceof CommandError && error.exitCode === AWAY;
}

/** For a command whose failure with these words means that it was done before. */
function unless(words: string): (error: unknown) => void {
  return (error) => {
    if (!(error instanceof CommandError) || !error.stderr.includes(words)) throw error;
  };
}

/** For a command that the daemon may refuse: what counts is looked at afterwards. */
function ifRefused(): (error: unknown) => void {
  return (error) => {
    if (!(error instanceof CommandError) || error.exitCode !== 22) throw error;
  };
}

export function missingTool(error: unknown): StorageError | undefined {
  if (!(error instanceof CommandError) || !error.isMissing) return undefined;
  return new StorageError(
    "failed-precondition",
    "tgtd and tgtadm are not installed; install them (Debian: apt-get install tgt), or use the exporter iscsi-lio",
    {},
    { cause: error },
  );
}
