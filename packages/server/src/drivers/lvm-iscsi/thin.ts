/** Volumes in a thin pool: a copy and a snapshot share blocks, are made in a moment, and outlive their source. */
import type { OpContext } from "../../core/driver.js";
import type { Known } from "./known.js";
import type { Layout, Made, NewObject } from "./layout.js";
import type { Lvm } from "./lvm.js";
import type { Names } from "./names.js";
import type { LvRow } from "./reports.js";
import { MAKING, UNWIPED } from "./tags.js";
import type { Wiping } from "./wiping.js";

export interface ThinParts {
  readonly lvm: Lvm;
  readonly known: Known;
  readonly names: Names;
  readonly wiping: Wiping;
  /** Whether the pool zeroes blocks before a volume gets them. */
  readonly isZeroing: boolean;
}

export class ThinLayout implements Layout {
  readonly #lvm: Lvm;
  readonly #known: Known;
  readonly #names: Names;
  readonly #wiping: Wiping;
  readonly #isZeroing: boolean;

  constructor({ lvm, known, names, wiping, isZeroing }: ThinParts) {
    this.#lvm = lvm;
    this.#known = known;
    this.#names = names;
    this.#wiping = wiping;
    this.#isZeroing = isZeroing;
  }

  async create({ id, sizeBytes, tags }: NewObject, context: OpContext): Promise<Made> {
    const all = this.#isZeroing ? tags : [...tags, UNWIPED];
    await this.#lvm.createThin({ name: id, tags: all }, sizeBytes, context);
    return { tags: all, pool: this.#lvm.about.pool ?? "" };
  }

  snapshot(source: LvRow, wanted: NewObject, context: OpContext): Promise<Made> {
    return this.#snap(source, wanted, "r", context);
  }

  copy(source: LvRow, wanted: NewObject, kind: "volume" | "snapshot", context: OpContext) {
    return this.#snap(source, wanted, kind === "volume" ? "rw" : "r", context);
  }

  async #snap(
    source: LvRow,
    { id, sizeBytes, tags }: NewObject,
    access: "r" | "rw",
    context: OpContext,
  ): Promise<Made> {
    const inherited = source.tags.filter((tag) => tag === UNWIPED);
    const all = [...tags, ...inherited];
    const isLarger = access === "rw" && sizeBytes > source.sizeBytes;
    const first = isLarger ? [MAKING] : all;
    await this.#lvm.snapThin(source.name, { name: id, tags: first }, access, context);
    if (isLarger) {
      await this.#lvm.extend(id, sizeBytes, context);
      await this.#lvm.retag(id, first, all, context);
    }
    return { tags: all, pool: source.pool };
  }

  async prepareToGrow(): Promise<void> {}

  async remove(row: LvRow, context: OpContext): Promise<void> {
    // A snapshot cannot be written, so it is left to the volumes that share its blocks.
    if (this.#names.kindOf(row.name) !== "snapshot") await this.#wiping.before(row, context);
    await this.#lvm.remove([row.name], context);
    this.#known.forget(row.name);
  }

  async clear(): Promise<void> {}
}
