/**
 * Which layout a volume has. One that is there shows it, by being in a pool or not; a new one has what was asked for, and
 * else what the service says. Copies and snapshots lie as their source does, because they share blocks with it or
 * need its space.
 */
import { StorageError } from "@libstorage/model";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import type { Layout } from "./layout.js";
import { isThin } from "./reports.js";
import type { LvRow } from "./reports.js";
import type { ThickLayout } from "./thick.js";
import type { ThinLayout } from "./thin.js";

/** The option of a new volume; a field of it later. */
export const PROVISIONING = "provisioning";

export type Provisioning = "thin" | "thick";

export interface LayoutParts {
  readonly thin: ThinLayout;
  readonly thick: ThickLayout;
  readonly hasPool: boolean;
  /** Of a volume that says nothing. */
  readonly usual: Provisioning;
}

export class Layouts {
  readonly #parts: LayoutParts;
  readonly #removals = new Map<string, Promise<void>>();

  constructor(parts: LayoutParts) {
    this.#parts = parts;
  }

  of(row: LvRow): Layout {
    return this.#parts[isThin(row) ? "thin" : "thick"];
  }

  /** Removes a volume or snapshot. Who asks for it while it is under way waits for that. */
  remove(row: LvRow, context: OpContext): Promise<void> {
    const underWay = this.#removals.get(row.name);
    if (underWay !== undefined) return underWay;
    const removal = this.of(row)
      .remove(row, context)
      .finally(() => this.#removals.delete(row.name));
    this.#removals.set(row.name, removal);
    return removal;
  }

  /** Of a new, empty volume. @throws {StorageError} `invalid-argument` */
  for(volume: VolumeRecord): { readonly layout: Layout; readonly isThin: boolean } {
    const { hasPool, usual } = this.#parts;
    const kind = askedFor(volume) ?? usual;
    if (kind === "thin" && !hasPool)
      throw new StorageError(
        "invalid-argument",
        `volume ${volume.id} cannot be thin: the service has no thin pool; leave the option ${PROVISIONING} out, or use a service with "thinPool"`,
        { resourceID: volume.id },
      );
    return { layout: this.#parts[kind], isThin: kind === "thin" };
  }

  /** Of a copy. @throws {StorageError} `invalid-argument` when another layout is asked for than the source has */
  forCopy(source: LvRow, volume: VolumeRecord): Layout {
    const kind = isThin(source) ? "thin" : "thick";
    const asked = askedFor(volume) ?? kind;
    if (asked === kind) return this.#parts[kind];
    throw new StorageError(
      "invalid-argument",
      `volume ${volume.id} cannot be ${asked}: its source ${source.name} is ${kind}, and a copy lies as its source does; create a ${asked} volume and copy the data into it`,
      { resourceID: source.name, [PROVISIONING]: kind },
    );
  }

  /** Removes what a copy to `id` needed, where it was cut short. Thin ones need nothing. */
  get clear(): Layout["clear"] {
    return this.#parts.thick.clear.bind(this.#parts.thick);
  }
}

function askedFor({ id, fields }: VolumeRecord): Provisioning | undefined {
  const asked = fields[PROVISIONING];
  if (asked === undefined || asked === "thin" || asked === "thick") return asked;
  throw new StorageError(
    "invalid-argument",
    `volume ${id}: the option ${PROVISIONING} is thin or thick, not ${JSON.stringify(asked)}`,
    { resourceID: id },
  );
}
