/**
 * Groups of snapshots that are being made, or could not be removed after they had failed: what there is of them
 * is not of one moment. Where file systems are frozen for it that is noted on this host, too, so that a plugin
 * which was killed meanwhile takes nothing for a good group that was cut after its end.
 */
import { join } from "node:path";
import { readSmallFile } from "../../executor/small-file.js";
import { removeDurably, writeDurably } from "../../host/durable-file.js";

/** What callers give as an id may be anything. */
const GROUP_ID = /^group-[0-9a-f]{32}$/;

export class OpenGroups {
  readonly #folder: string;
  readonly #open = new Set<string>();

  /** @param folder of one plugin; made with the first note */
  constructor(folder: string) {
    this.#folder = folder;
  }

  #fileOf(groupID: string): string {
    return join(this.#folder, `${groupID}.open`);
  }

  /** @param isKept whether a kill of the plugin leaves the note */
  async begin(groupID: string, isKept: boolean): Promise<void> {
    this.#open.add(groupID);
    if (isKept) await writeDurably(this.#fileOf(groupID), "");
  }

  /** It is whole and good, or nothing of it is there. */
  async end(groupID: string): Promise<void> {
    if (this.#isNoted(groupID)) await removeDurably(this.#fileOf(groupID));
    this.#open.delete(groupID);
  }

  isOpen(groupID: string): boolean {
    return this.#open.has(groupID) || this.#isNoted(groupID);
  }

  #isNoted(groupID: string): boolean {
    return GROUP_ID.test(groupID) && readSmallFile(this.#fileOf(groupID)) !== undefined;
  }
}
