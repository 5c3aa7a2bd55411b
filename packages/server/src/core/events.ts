/** The event stream: journal entries that are news, in the order of their sequence numbers. */
import { isNews } from "./journal-entry.js";
import type { JournalEntry } from "./journal-entry.js";
import type { Journal } from "./journal.js";

export type Listener = (entry: JournalEntry) => void;

/**
 * Entries become durable together but are published one by one, after the inventory shows their effect.
 * Whoever reconnects says which number it saw last, so no lower number may follow a higher one: an entry
 * waits until all before it are settled.
 */
export class Events {
  readonly #journal: Journal;
  readonly #listeners = new Set<Listener>();
  readonly #settled = new Map<number, JournalEntry | undefined>();
  #published: number;

  constructor(journal: Journal) {
    this.#journal = journal;
    this.#published = journal.lastSeq;
    journal.onLost = (seq) => this.#settle(seq, undefined);
  }

  /** The number of the last event that was published. */
  get lastID(): number {
    return this.#published;
  }

  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What was published after `id`, from the journal. */
  *since(id: number): Generator<JournalEntry> {
    for (const entry of this.#journal.since(id)) {
      if (entry.seq > this.#published) return;
      if (isNews(entry)) yield entry;
    }
  }

  /** An entry is on the disk and its effect can be seen. Every appended entry must come here once. */
  publish(entry: JournalEntry): void {
    this.#settle(entry.seq, entry);
  }

  #settle(seq: number, entry: JournalEntry | undefined): void {
    this.#settled.set(seq, entry);
    while (this.#settled.has(this.#published + 1)) {
      this.#published += 1;
      const next = this.#settled.get(this.#published);
      this.#settled.delete(this.#published);
      if (next !== undefined) this.#tell(next);
    }
  }

  #tell(entry: JournalEntry): void {
    if (isNews(entry)) for (const listener of this.#listeners) listener(entry);
  }
}
