/** What happens to data before its space is given back. */
import type { OpContext } from "../../core/driver.js";
import { discardBlocks, zeroBlocks } from "./blocks.js";
import type { LvmConfig } from "./config.js";
import type { Lvm } from "./lvm.js";
import type { LvRow } from "./reports.js";
import { REMOVED } from "./tags.js";

export class Wiping {
  readonly #lvm: Lvm;
  readonly #kind: LvmConfig["wipe"];

  constructor(lvm: Lvm, kind: LvmConfig["wipe"]) {
    this.#lvm = lvm;
    this.#kind = kind;
  }

  /**
   * Wipes a volume that nobody has open. Its record goes first: what is half wiped is no volume any more.
   * A snapshot cannot be written, so it is left to the volumes that share its blocks.
   */
  async before(row: LvRow, context: OpContext): Promise<void> {
    if (this.#kind === "none") return;
    const { name, tags, sizeBytes } = row;
    await this.#lvm.deactivate(name, context);
    await this.#lvm.retag(name, tags, [REMOVED], context);
    await this.#lvm.activate(name, context);
    const device = this.#lvm.device(name);
    if (this.#kind === "zero") await zeroBlocks(device, 0, sizeBytes, context);
    else await discardBlocks(device, context);
  }
}
