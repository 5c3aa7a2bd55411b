/** Work on volumes that are images. Nobody may hold the volume meanwhile, since it is not done through a holder. */
import { StorageError, roundUp } from "@libstorage/model";
import { heldByOther } from "./access.js";
import type { ImageCheck, ImageSize, OpContext, StorageDriver, VolumeRecord } from "./driver.js";
import type { Inventory } from "./inventory.js";
import type { Prepared, Subject, Work } from "./operations.js";
import { unable, usable } from "./refusals.js";

/** In so many words: what lies behind the new end is lost. */
export interface ShrinkRequest {
  readonly sizeBytes: number;
  /** Without it data behind the new end are a reason to refuse. */
  readonly discardData: boolean;
}

export class ImageWork {
  readonly #driver: StorageDriver;
  readonly #inventory: Inventory;

  constructor(driver: StorageDriver, inventory: Inventory) {
    this.#driver = driver;
    this.#inventory = inventory;
  }

  check(volume: VolumeRecord, repair: boolean): Work<ImageCheck> {
    const images = this.#imagesFor("check", volume, repair);
    return this.#work(volume, {}, (context) => images.check(volume, repair, context));
  }

  measure(volume: VolumeRecord, format: string): Work<ImageSize> {
    const images = this.#imagesFor("measure", volume, false);
    return this.#work(volume, {}, (context) => images.measure(volume, format, context));
  }

  convert(volume: VolumeRecord, format: string): Work<VolumeRecord> {
    const images = this.#imagesFor("convert", volume, true);
    return this.#work(
      volume,
      {},
      (context) => images.convert(volume, format, context),
      (converted) => this.#inventory.putVolume(converted),
    );
  }

  shrink(volume: VolumeRecord, { sizeBytes, discardData }: ShrinkRequest): Prepared<VolumeRecord> {
    const images = this.#imagesFor("shrink", volume, true);
    const size = roundUp(sizeBytes, this.#driver.allocationUnitBytes);
    if (size === volume.sizeBytes) return { settled: volume };
    if (size > volume.sizeBytes)
      throw new StorageError(
        "invalid-argument",
        `volume ${volume.id} has ${volume.sizeBytes} bytes and cannot shrink to ${size}; expand it instead`,
        { volumeID: volume.id, sizeBytes: volume.sizeBytes },
      );
    return {
      work: this.#work(
        volume,
        { sizeBytes: size, force: discardData },
        (context) => images.shrink(volume, size, discardData, context),
        (shrunk) => this.#inventory.putVolume(shrunk),
      ),
    };
  }

  #imagesFor(doing: string, volume: VolumeRecord, isChange: boolean) {
    const { images } = this.#driver;
    if (images === undefined) throw unable(`${doing} images`);
    if (usable(volume).attachments.length > 0 && isChange)
      throw heldByOther(volume, doing, "detach it first");
    return images;
  }

  #work<T>(
    { id }: VolumeRecord,
    subject: Subject,
    run: (context: OpContext) => Promise<T>,
    apply: (result: T) => void = () => {},
  ): Work<T> {
    return {
      subject: { volumeID: id, ...subject },
      run,
      apply,
      takeBack: async (context) => {
        await this.#inventory.rereadVolume(id, context);
      },
    };
  }
}
