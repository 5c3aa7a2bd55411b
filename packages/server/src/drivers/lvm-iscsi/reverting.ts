/**
 * A volume goes back to a snapshot: a copy of the snapshot is made under a name of its own, and gets the volume's name
 * once it is whole. Each of LVM's commands is done or not, so the names alone tell how far a revert has come:
 *
 *     ID, ID.next           the copy is being made, or is whole: it is taken back
 *     ID.next, ID.old1      the volume has given its name up: ID.next gets it
 *     ID, ID.old1           it is done: what was there before goes
 *
 * The record goes with the data, because it stands in the tags of both. What was there before stays where snapshots
 * without a pool need it, as a removed volume does.
 */
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import { ownEnd } from "../folders/steps.js";
import type { Known } from "./known.js";
import type { Layouts } from "./layouts.js";
import type { Lvm } from "./lvm.js";
import type { Names } from "./names.js";
import type { Objects } from "./objects.js";
import { volumeTags } from "./records.js";
import type { LvRow } from "./reports.js";
import { isOurs, MAKING, REMOVED } from "./tags.js";

export interface RevertParts {
  readonly lvm: Lvm;
  readonly known: Known;
  readonly names: Names;
  readonly objects: Objects;
  readonly layouts: Layouts;
}

export class Reverting {
  readonly #parts: RevertParts;

  constructor(parts: RevertParts) {
    this.#parts = parts;
  }

  /**
   * @param volume as it shall be then
   * @param admit throws when there is no room for a copy of the snapshot
   * @returns how it stands
   */
  async revert(
    volume: VolumeRecord,
    snapshotID: string,
    admit: (source: LvRow) => void,
    context: OpContext,
  ): Promise<LvRow> {
    const { objects } = this.#parts;
    const { id } = volume;
    await this.settle(id, context);
    const before = await objects.existing(id, "volume", context);
    const source = await objects.existing(snapshotID, "snapshot", context);
    admit(source);
    await ownEnd(
      () => this.#exchange(before, source, volume, context),
      (own) => this.settle(id, own),
      context,
    );
    return objects.existing(id, "volume", context);
  }

  async #exchange(
    before: LvRow,
    source: LvRow,
    volume: VolumeRecord,
    context: OpContext,
  ): Promise<void> {
    const { lvm, names, layouts } = this.#parts;
    const { id, sizeBytes } = volume;
    // Nobody may have it open, and a copy for nothing would cost time.
    await this.#letGo(id, context);
    const tags = [...before.tags.filter((tag) => !isOurs(tag)), ...volumeTags(volume)];
    await layouts
      .of(source)
      .copy(source, { id: names.nextOf(id), sizeBytes, tags }, "volume", context);
    // Copying has activated it where the snapshot is none of a pool.
    if (source.pool === "") await this.#letGo(id, context);
    await lvm.rename(id, this.#freeOld(id), context);
    await lvm.rename(names.nextOf(id), id, context);
    await this.settle(id, context);
  }

  async #letGo(id: string, context: OpContext): Promise<void> {
    const { lvm, objects } = this.#parts;
    await lvm.deactivate(id, context).catch(async (error: unknown) => {
      throw await objects.explained(error, "volume", id, "go back to a snapshot", context);
    });
  }

  /** Earlier ones may stay for their snapshots. */
  #freeOld(id: string): string {
    const { known, names } = this.#parts;
    for (let number = 1; ; number += 1) {
      const name = names.oldOf(id, number);
      if (known.get(name) === undefined) return name;
    }
  }

  /**
   * Ends a revert that was cut short, from the names of what is there.
   * @returns whether the volume has the snapshot's data through this
   */
  async settle(id: string, context: OpContext): Promise<boolean> {
    await this.#look(context);
    const isDone = await this.#end(id, context);
    // Snapshots without a pool name their origin, whose name may have changed.
    if (isDone) await this.#look(context);
    return isDone;
  }

  /** All that were cut short, from what was listed just now. What cannot be ended waits for its operation. */
  async settleAll(context: OpContext): Promise<void> {
    const { known, names } = this.#parts;
    const ids = new Set(
      known
        .all()
        .filter(({ tags }) => !tags.includes(REMOVED))
        .map(({ name }) => names.revertedBy(name))
        .filter((id) => id !== undefined),
    );
    for (const id of ids)
      await this.settle(id, context).catch((error: unknown) =>
        context.log.warn({ error, volumeID: id }, "a revert that was cut short could not be ended"),
      );
  }

  async #look(context: OpContext): Promise<void> {
    await this.#parts.objects.list(context);
  }

  async #end(id: string, context: OpContext): Promise<boolean> {
    const { lvm, known, names, layouts } = this.#parts;
    const nextName = names.nextOf(id);
    const next = known.get(nextName);
    let volume = known.get(id);
    let isDone = false;
    // One that is being wiped is no copy any more, whatever has become of the volume.
    const isOver = next !== undefined && (volume !== undefined || next.tags.includes(REMOVED));
    if (isOver) {
      await layouts.remove(next, context);
      known.forget(nextName);
    } else if (next !== undefined && !next.tags.includes(MAKING)) {
      await lvm.rename(nextName, id, context);
      known.forget(nextName);
      volume = { ...next, name: id };
      known.put(volume);
      isDone = true;
    }
    if (volume === undefined) return isDone;
    for (const old of known.all().filter(({ name }) => names.isOldOf(name, id))) {
      const isKept = old.tags.includes(REMOVED) && known.all().some((o) => o.origin === old.name);
      if (isKept) continue;
      await layouts.remove(old, context);
      if (known.get(old.name)?.tags.includes(REMOVED) !== true) known.forget(old.name);
      isDone = true;
    }
    return isDone;
  }
}
