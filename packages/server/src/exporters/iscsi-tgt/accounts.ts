/**
 * Accounts of tgtd: one object per user name, bound to any number of targets, without a way to see or change its
 * password. An account that is deleted is unbound everywhere without a word, and a target without any asks for
 * none; so none is deleted while a target that has it lets anyone in.
 */
import { createHash } from "node:crypto";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import type { Credentials } from "../iscsi/chap.js";
import type { TgtTarget } from "./dump.js";
import type { TgtAdm } from "./tgtadm.js";

interface Wanted {
  readonly user: string;
  readonly secret: string;
  readonly isOutgoing: boolean;
}

function wantedOf({ user, secret, targetUser, targetSecret }: Credentials): readonly Wanted[] {
  const own = [{ user, secret, isOutgoing: false }];
  if (targetUser === undefined || targetSecret === undefined) return own;
  return [...own, { user: targetUser, secret: targetSecret, isOutgoing: true }];
}

function digest(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

export class Accounts {
  readonly #adm: TgtAdm;
  /** The digest of the password that an account was given by this process. */
  readonly #known = new Map<string, string>();

  constructor(adm: TgtAdm) {
    this.#adm = adm;
  }

  /** What a daemon knew is gone with it. */
  forget(): void {
    this.#known.clear();
  }

  /** Whether a target asks for exactly these users, whatever their passwords. */
  static areBound({ accounts }: TgtTarget, credentials: Credentials | undefined): boolean {
    const wanted = credentials === undefined ? [] : wantedOf(credentials);
    return (
      accounts.length === wanted.length &&
      wanted.every(({ user, isOutgoing }) =>
        accounts.some((one) => one.user === user && one.isOutgoing === isOutgoing),
      )
    );
  }

  /**
   * Sees to it that the users are there with these passwords. Sessions are not touched.
   * @param isOwn whether a target is of this server
   * @throws {StorageError} `failed-precondition` when a user name is someone else's in this daemon
   */
  async ensure(
    credentials: Credentials,
    isOwn: (iqn: string) => boolean,
    context: OpContext,
  ): Promise<void> {
    for (const wanted of wantedOf(credentials)) await this.#make(wanted, isOwn, context);
  }

  /** Binds the users to a target that nobody may come to yet. */
  async bind(tid: number, credentials: Credentials, context: OpContext): Promise<void> {
    for (const { user, isOutgoing } of wantedOf(credentials))
      await this.#adm.bindAccount(context, tid, user, isOutgoing);
  }

  async #make(
    { user, secret }: Wanted,
    isOwn: (iqn: string) => boolean,
    context: OpContext,
  ): Promise<void> {
    const isThere = (await this.#adm.accounts(context)).includes(user);
    if (isThere && this.#known.get(user) === digest(secret)) return;
    if (isThere) await this.#replace(user, secret, isOwn, context);
    else await this.#adm.makeAccount(context, user, secret);
    this.#known.set(user, digest(secret));
  }

  /** With nobody let in to the targets of that user until they ask for the new password. Sessions go on. */
  async #replace(
    user: string,
    secret: string,
    isOwn: (iqn: string) => boolean,
    context: OpContext,
  ): Promise<void> {
    const bound = (await this.#adm.targets(context)).filter(({ accounts }) =>
      accounts.some((account) => account.user === user),
    );
    const foreign = bound.find(({ iqn }) => !isOwn(iqn));
    if (foreign !== undefined)
      throw new StorageError(
        "failed-precondition",
        `the user ${user} in the file of CHAP secrets is a user of the target ${foreign.iqn} in the same tgtd already; choose another user name`,
        { user, iqn: foreign.iqn },
      );
    this.#known.delete(user);
    for (const { tid, acl } of bound)
      for (const rule of acl) await this.#adm.disallow(context, tid, rule);
    await this.#adm.removeAccount(context, user);
    await this.#adm.makeAccount(context, user, secret);
    for (const { tid, accounts, acl } of bound) {
      for (const account of accounts)
        if (account.user === user)
          await this.#adm.bindAccount(context, tid, user, account.isOutgoing);
      for (const rule of acl) await this.#adm.allow(context, tid, rule);
    }
  }

  /** Removes accounts that this process made and no target has any more. */
  async removeUnused(context: OpContext): Promise<void> {
    const candidates = (await this.#adm.accounts(context)).filter((user) => this.#known.has(user));
    if (candidates.length === 0) return;
    const targets = await this.#adm.targets(context);
    const bound = new Set(targets.flatMap(({ accounts }) => accounts.map(({ user }) => user)));
    for (const user of candidates)
      if (!bound.has(user)) {
        await this.#adm.removeAccount(context, user);
        this.#known.delete(user);
      }
  }
}
