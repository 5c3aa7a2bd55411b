/** The volumes and snapshots of a service as they stand in its group, and how they come and go. */
import { notFound, StorageError } from "@libstorage/model";
import type { Listing, OpContext, SnapshotRecord, VolumeRecord } from "../../core/driver.js";
import { failureOf, isGone, isInUse, isTaken } from "./failures.js";
import type { Known } from "./known.js";
import type { Made, NewObject } from "./layout.js";
import { isThin } from "./reports.js";
import type { Layouts } from "./layouts.js";
import type { Lvm } from "./lvm.js";
import type { Names } from "./names.js";
import { snapshotIn, volumeIn } from "./records.js";
import type { LvRow } from "./reports.js";
import { isOurs, MAKING, REMOVED, UNWIPED } from "./tags.js";
import { countedUsesOf, wordsOf } from "./uses.js";

export type Kind = "volume" | "snapshot";

/** An undo has its own time, since the end of the operation's may be what failed. */
const UNDO_MS = 10 * 60_000;

const CUT_SHORT = "a copy to it was cut short; remove it with force";

export interface ObjectParts {
  readonly lvm: Lvm;
  readonly known: Known;
  readonly names: Names;
  readonly layouts: Layouts;
}

export class Objects {
  readonly #lvm: Lvm;
  readonly #known: Known;
  readonly #names: Names;
  readonly #layouts: Layouts;
  /** What is being changed, and how often at once. */
  readonly #busy = new Map<string, number>();
  /** Names that others had given when this server was about to give them: clearing up after that leaves these alone. */
  readonly #foreign = new Set<string>();

  constructor({ lvm, known, names, layouts }: ObjectParts) {
    this.#lvm = lvm;
    this.#known = known;
    this.#names = names;
    this.#layouts = layouts;
  }

  isBusy(id: string): boolean {
    return this.#busy.has(id);
  }

  async list(context: OpContext): Promise<Listing> {
    const { rows, touched } = await this.#known.list(() => this.#lvm.lvs(context));
    this.#known.take(rows, touched);
    return {
      volumes: this.shown([...rows, ...this.#standIns(rows)], "volume").map((row) =>
        this.volume(row),
      ),
      snapshots: this.shown(rows, "snapshot").map((row) => this.snapshot(row)),
    };
  }

  /** A volume that goes back to a snapshot has no name for a moment; the copy that gets it stands for it. */
  #standIns(rows: readonly LvRow[]): LvRow[] {
    const names = new Set(rows.map(({ name }) => name));
    return rows.flatMap((row) => {
      const id = this.#names.revertedBy(row.name);
      if (id === undefined || names.has(id) || row.name !== this.#names.nextOf(id)) return [];
      return row.tags.includes(MAKING) ? [] : [{ ...row, name: id }];
    });
  }

  /** Those of one kind that are shown, in order of id. */
  shown(rows: readonly LvRow[], kind: Kind): LvRow[] {
    return rows
      .filter((row) => this.#names.kindOf(row.name) === kind && this.#isShown(row))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** What is being made is no volume yet, and what was removed is none any more. */
  #isShown({ name, tags }: LvRow): boolean {
    if (tags.includes(REMOVED)) return false;
    return !(tags.includes(MAKING) && this.#busy.has(name));
  }

  volume(row: LvRow): VolumeRecord {
    const volume = volumeIn(row, this.#lvm.device(row.name));
    return row.tags.includes(MAKING) ? { ...volume, broken: CUT_SHORT } : volume;
  }

  snapshot(row: LvRow): SnapshotRecord {
    const snapshot = snapshotIn(row, row.origin);
    return row.tags.includes(MAKING) ? { ...snapshot, broken: CUT_SHORT } : snapshot;
  }

  async inspect(id: string, kind: Kind, context: OpContext): Promise<LvRow | undefined> {
    if (this.#names.kindOf(id) !== kind) return undefined;
    const row = await this.#look(id, context);
    return row !== undefined && this.#isShown(row) ? row : undefined;
  }

  async #look(id: string, context: OpContext): Promise<LvRow | undefined> {
    const { rows, touched } = await this.#known.list(async () => {
      const row = await this.#lvm.lv(id, context);
      return row === undefined ? [] : [row];
    });
    const [row] = rows;
    if (touched.has(id)) return row;
    if (row === undefined) this.#known.forget(id);
    else this.#known.put(row);
    return row;
  }

  /** @throws {StorageError} `not-found`, or `failed-precondition` when it is broken */
  async existing(id: string, kind: Kind, context: OpContext): Promise<LvRow> {
    const isKind = this.#names.kindOf(id) === kind;
    const row = isKind ? (this.#known.get(id) ?? (await this.#look(id, context))) : undefined;
    if (row === undefined || !this.#isShown(row)) throw notFound(kind, id);
    const { broken } = kind === "volume" ? this.volume(row) : this.snapshot(row);
    if (broken === undefined) return row;
    throw new StorageError("failed-precondition", `${kind} ${id} is broken: ${broken}`, {
      resourceID: id,
    });
  }

  /** The way to every change of one id. @throws {StorageError} */
  async change<R>(
    kind: Kind,
    id: string,
    verb: string,
    context: OpContext,
    act: () => Promise<R>,
  ): Promise<R> {
    this.#busy.set(id, (this.#busy.get(id) ?? 0) + 1);
    try {
      context.signal.throwIfAborted();
      return await act();
    } catch (error) {
      this.#known.forget(id);
      throw failureOf(error, `${verb} ${kind} ${id}`, this.#lvm.about);
    } finally {
      const left = (this.#busy.get(id) ?? 1) - 1;
      if (left > 0) this.#busy.set(id, left);
      else this.#busy.delete(id);
    }
  }

  /**
   * Makes something, unless it is there already. What is half there after a failure is taken away.
   * @throws {StorageError} `already-exists` when something else has the id
   */
  async make(
    kind: Kind,
    wanted: NewObject,
    context: OpContext,
    make: () => Promise<Made>,
  ): Promise<LvRow> {
    const { id, sizeBytes } = wanted;
    const before = this.#known.get(id);
    if (before !== undefined) return this.#sameOrTaken(kind, before, wanted);
    try {
      const row = newRow(id, sizeBytes, await make());
      this.#known.put(row);
      return row;
    } catch (error) {
      if (isTaken(error)) return this.#sameOrTaken(kind, await this.#lvm.lv(id, context), wanted);
      const undoContext = { ...context, signal: AbortSignal.timeout(UNDO_MS) };
      await this.#unmake(wanted, undoContext).catch((undoError: unknown) =>
        context.log.error({ error: undoError }, "undo failed"),
      );
      throw error;
    }
  }

  /** The same record under the same id is what an earlier, equal call has made. */
  #sameOrTaken(kind: Kind, there: LvRow | undefined, { id, tags }: NewObject): LvRow {
    if (there !== undefined && tags.every((tag) => there.tags.includes(tag))) return there;
    if (there?.tags.some(isOurs) === false) this.#foreign.add(id);
    throw new StorageError(
      "already-exists",
      `there is a logical volume ${id} already, which is not the ${kind} that was to be made`,
      { resourceID: id },
    );
  }

  /** Only what this call has made: something else may have the name. */
  async #unmake({ id, tags }: NewObject, context: OpContext): Promise<void> {
    await this.#layouts.clear(id, context);
    const row = await this.#lvm.lv(id, context);
    if (row === undefined) return;
    if (!row.tags.includes(MAKING) && !tags.every((tag) => row.tags.includes(tag))) return;
    // Nobody has written into what was made empty.
    const isEmpty = row.tags.includes(UNWIPED) && !row.tags.includes(MAKING) && row.origin === "";
    if (isEmpty) await this.#lvm.remove([id], context);
    else await this.#layouts.remove(row, context);
  }

  /** Removes what there is of it. */
  async remove(kind: Kind, id: string, context: OpContext): Promise<void> {
    if (this.#names.kindOf(id) !== kind) return;
    const known = this.#known.get(id);
    if (known === undefined || known.tags.includes(MAKING)) await this.#layouts.clear(id, context);
    const row = known ?? (await this.#look(id, context));
    if (row === undefined) return;
    if (!row.tags.some(isOurs)) {
      // It got its name by hand while this server was about to use it. It is left alone.
      if (known === undefined || this.#foreign.delete(id)) return;
      throw new StorageError(
        "failed-precondition",
        `${kind} ${id} has no tags of libStorage, so it may be someone else's; remove it by hand: lvremove ${this.#lvm.path(id)}`,
        { resourceID: id },
      );
    }
    await this.#layouts.remove(row, context).catch(async (error: unknown) => {
      if (isGone(error)) return this.#known.forget(id);
      throw await this.explained(error, kind, id, "be removed", context);
    });
    if (this.#known.get(id)?.tags.includes(REMOVED) !== true) this.#known.forget(id);
    // It may have been the last snapshot of a removed volume, about which nothing is known after a failure.
    const { origin } = row;
    if (origin !== "" && !isThin(row) && this.#known.get(origin) === undefined)
      await this.#look(origin, context);
  }

  /**
   * Removes what was removed before and is needed by nothing any more: volumes whose last snapshot is gone, and what was
   * being wiped when something failed. What cannot be removed waits for the next time.
   */
  async sweep(context: OpContext): Promise<void> {
    const tried = new Set<string>();
    for (;;) {
      const row = this.#known.all().find((one) => !tried.has(one.name) && this.#isOver(one));
      if (row === undefined || context.signal.aborted) return;
      tried.add(row.name);
      await this.#layouts.remove(row, context).catch(async (error: unknown) => {
        this.#known.forget(row.name);
        if (isGone(error)) return;
        const volume = this.#lvm.path(row.name);
        context.log.warn({ error, volume }, "what was removed before still takes its space");
        // It may have come some way.
        await this.#look(row.name, context).catch(() => {});
      });
    }
  }

  #isOver(row: LvRow): boolean {
    const owner = this.#names.ownerOf(row.name);
    if (owner === undefined || this.isBusy(owner) || !row.tags.includes(REMOVED)) return false;
    // Others' snapshots come and go unseen, and are looked for then.
    const needs = ({ origin, tags }: LvRow): boolean => origin === row.name && tags.some(isOurs);
    return isThin(row) || !this.#known.all().some(needs);
  }

  /** Names what has a volume open, where that is why something failed. */
  async explained(
    error: unknown,
    kind: Kind,
    id: string,
    doing: string,
    context: OpContext,
  ): Promise<unknown> {
    if (!isInUse(error)) return error;
    const uses = await countedUsesOf(this.#lvm.device(id), context);
    return new StorageError(
      "failed-precondition",
      `${kind} ${id} cannot ${doing}: ${wordsOf(uses)}; then try again`,
      { resourceID: id, ...uses },
      { cause: error },
    );
  }
}

function newRow(name: string, sizeBytes: number, { tags, origin = "", pool = "" }: Made): LvRow {
  return {
    name,
    dmUUID: "",
    seqno: 0,
    sizeBytes,
    dataBytes: sizeBytes,
    tags,
    origin,
    pool,
    isActive: false,
    health: "",
    isSnapshotInvalid: false,
    segmentType: "",
  };
}
