/** How the block nodes and objects of one volume are called in its storage daemon. */

/** QEMU takes no longer names of nodes. */
const MAX_CHARS = 31;

const KEY = String.raw`[\da-f]{16}`;
const AMONG = new RegExp(`^(?:v-(${KEY})(?:-|$)|[xtd]-(${KEY})-)`);
const ALONE = /^volume(?:-|$)/;

export class NodeNames {
  /** The volume as it was opened. Layers that were laid over it have a number behind this. */
  readonly node: string;
  readonly #own: string;

  private constructor(node: string, own: string) {
    this.node = node;
    this.#own = own;
  }

  /** Of the only volume in a daemon. */
  static readonly alone = new NodeNames("volume", "");

  /** Of one of the volumes in a daemon. @param key 16 hexadecimal digits that no other volume of the service has */
  static among(key: string): NodeNames {
    return new NodeNames(`v-${key}`, `${key}-`);
  }

  /** The volumes, or what is left of them, to which nodes belong. */
  static in(names: readonly string[]): readonly NodeNames[] {
    const keys = names.flatMap((name) => {
      const [, ofNode, ofExport] = AMONG.exec(name) ?? [];
      return ofNode ?? ofExport ?? [];
    });
    const all = [...new Set(keys)].map((key) => NodeNames.among(key));
    return names.some((name) => ALONE.test(name)) ? [NodeNames.alone, ...all] : all;
  }

  #of(letter: string, id: string): string {
    // What is cut off tells apart exports of one volume; what is left does too.
    return `${letter}-${this.#own}${id.replace(/^e-/, "")}`.slice(0, MAX_CHARS);
  }

  /** The filter of an export. */
  filterOf(id: string): string {
    return this.#of("x", id);
  }

  /** Its limits. */
  groupOf(id: string): string {
    return this.#of("t", id);
  }

  /** What it leads to when it was shut down. */
  deadEndOf(id: string): string {
    return this.#of("d", id);
  }

  isFilter(name: string): boolean {
    return name.startsWith(`x-${this.#own}`);
  }

  isGroup(name: string): boolean {
    return name.startsWith(`t-${this.#own}`);
  }

  isOwn(name: string): boolean {
    return (
      name === this.node ||
      name.startsWith(`${this.node}-`) ||
      this.isFilter(name) ||
      name.startsWith(`d-${this.#own}`)
    );
  }

  /** 0 for the volume, its number for a layer, NaN for anything else. */
  numberOf(name: string): number {
    if (name === this.node) return 0;
    const isNumbered = name.startsWith(`${this.node}-`);
    const [digits] = (isNumbered && /^\d{1,6}$/.exec(name.slice(this.node.length + 1))) || [];
    return Number(digits ?? Number.NaN);
  }

  /** The name of a layer over a node. */
  over(name: string): string {
    return `${this.node}-${this.numberOf(name) + 1}`;
  }
}
