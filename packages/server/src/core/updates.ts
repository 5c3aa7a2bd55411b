/** Changes of a volume's record that its holders need not know of. */
import { MUTABLE, StorageError } from "@libstorage/model";
import type { MutableName } from "@libstorage/model";
import type { StorageDriver, VolumeChange, VolumeRecord } from "./driver.js";
import type { Inventory } from "./inventory.js";
import type { Prepared } from "./operations.js";
import { bounded, usable } from "./refusals.js";

/** What shall change; what is left out stays. */
export interface UpdateRequest {
  readonly name?: string;
  readonly type?: string;
  readonly iops?: number;
  /** By name in lower case; null takes a field away. */
  readonly fields?: Readonly<Record<string, string | null>>;
}

export class Updates {
  readonly #driverName: string;
  readonly #driver: StorageDriver;
  readonly #inventory: Inventory;

  constructor(driverName: string, driver: StorageDriver, inventory: Inventory) {
    this.#driverName = driverName;
    this.#driver = driver;
    this.#inventory = inventory;
  }

  /**
   * Nothing to change is fine.
   * @param takeName called when the volume gets another name
   * @throws {StorageError} `unimplemented` for what this driver cannot change, all of it named
   */
  update(
    volume: VolumeRecord,
    request: UpdateRequest,
    takeName: () => void,
  ): Prepared<VolumeRecord> {
    const { id } = usable(volume);
    const change = changeIn(volume, request);
    const changed = Object.keys(change) as MutableName[];
    if (changed.length === 0) return { settled: volume };
    this.#check(volume, change, changed);
    if (change.fields !== undefined) bounded(change.fields);
    // Names are the same without regard to case.
    const { name } = change;
    if (name !== undefined && name.toLowerCase() !== volume.name.toLowerCase()) takeName();
    return {
      work: {
        subject: { volumeID: id, change },
        run: (context) => this.#driver.volumeUpdate({ ...volume, ...change }, context),
        apply: (updated) => this.#inventory.putVolume(updated),
        takeBack: async (context) => {
          await this.#inventory.rereadVolume(id, context);
        },
      },
    };
  }

  #check(volume: VolumeRecord, change: VolumeChange, changed: readonly MutableName[]): void {
    const { mutable, fixedFields = [] } = this.#driver;
    const unable = changed.filter((name) => !mutable.includes(name));
    const about = { volumeID: volume.id, driver: this.#driverName };
    if (unable.length > 0)
      throw new StorageError(
        "unimplemented",
        `not supported: the ${this.#driverName} driver cannot change ${unable.join(" and ")} of a volume; it can change ${mutable.join(", ") || "nothing"}`,
        { ...about, unable, mutable },
      );
    const { fields = volume.fields } = change;
    const fixed = fixedFields.filter((name) => fields[name] !== volume.fields[name]);
    if (fixed.length > 0)
      throw new StorageError(
        "invalid-argument",
        `the field ${fixed.join(" and ")} of volume ${volume.id} says how it was made, and cannot be changed`,
        { ...about, fields: fixed },
      );
  }
}

/** What of the request is not so already. */
function changeIn(volume: VolumeRecord, { fields: asked, ...plain }: UpdateRequest): VolumeChange {
  const wanted: VolumeChange = { ...plain, ...(asked !== undefined && merged(volume, asked)) };
  const differs = (name: MutableName): boolean =>
    wanted[name] !== undefined && JSON.stringify(wanted[name]) !== JSON.stringify(volume[name]);
  return Object.fromEntries(MUTABLE.filter(differs).map((name) => [name, wanted[name]]));
}

function merged({ fields }: VolumeRecord, asked: NonNullable<UpdateRequest["fields"]>) {
  const all = new Map<string, string>(Object.entries(fields));
  for (const [name, value] of Object.entries(asked))
    if (value === null) all.delete(name);
    else all.set(name, value);
  return { fields: Object.fromEntries(all) };
}
