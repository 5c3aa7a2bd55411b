/**
 * A volume group in memory, which answers LVM's commands as LVM does, as far as the driver uses them. It stands
 * where the kernel has no device-mapper; the lab runs the driver on a real group. Data is not in it.
 */
import { createHash } from "node:crypto";

interface Lv {
  readonly name: string;
  sizeBytes: number;
  tags: Set<string>;
  origin: string;
  pool: string;
  isActive: boolean;
}

/** How a command ends; 5 is LVM's exit for what it refuses. */
export interface Ended {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

class Refusal extends Error {}

const EXTENT = 4 * 1024 ** 2;
const TOTAL = 100 * 1024 ** 4;

function uuidOf(name: string): string {
  const letters = createHash("sha256").update(name).digest("hex").slice(0, 32);
  return [6, 10, 14, 18, 22, 26].reduce((text, at, index) => {
    const place = at + index;
    return `${text.slice(0, place)}-${text.slice(place)}`;
  }, letters);
}

/** The words after an option, for each time it is there. */
function valuesOf(args: readonly string[], option: string): string[] {
  return args.flatMap((arg, index) => (arg === option ? [args[index + 1] ?? ""] : []));
}

export class VolumeGroupModel {
  readonly #lvs = new Map<string, Lv>();
  readonly #group: string;
  #seqno = 1;
  #fill = { data: 1, metadata: 1 };
  #health = "";
  #metadataBytes: number;
  readonly #pool: string;

  /** @param metadataBytes of the pool; so much by itself that it need not be looked at often */
  constructor(group: string, pool: string, metadataBytes = 8 * 1024 ** 3) {
    this.#metadataBytes = metadataBytes;
    this.#group = group;
    this.#pool = pool;
    this.#lvs.set(pool, this.#new(pool, 1024 ** 4, []));
  }

  /** In percent. */
  setFill(fill: Partial<{ readonly data: number; readonly metadata: number }>): void {
    this.#fill = { ...this.#fill, ...fill };
    this.#seqno += 1;
  }

  /** Whether the pool zeroes blocks before it gives them again. */
  isZeroing = true;
  /** Disks that are gone, and with them a part of every volume. It is no change of the group. */
  missingDisks = 0;
  /** Snapshots with space of their own that have overflowed. It is no change of the group. */
  readonly overflowed = new Set<string>();
  /** By whom the group is locked for several hosts: empty, or `sanlock`, `dlm`. */
  lockType = "";
  isExported = false;
  /** Which commands fail, in one line each. */
  refuse: RegExp | undefined;
  /** What they say then. */
  refusal = "refused";
  /** Every command, in one line each. */
  readonly lines: string[] = [];

  /** Of the pool, as lvs(8) says it: `failed`, `out_of_data`, `metadata_read_only`. */
  setHealth(health: string): void {
    this.#health = health;
    this.#seqno += 1;
  }

  /** The bytes of the pool. */
  get poolSize(): { readonly data: number; readonly metadata: number } {
    return { data: this.#lvs.get(this.#pool)?.sizeBytes ?? 0, metadata: this.#metadataBytes };
  }

  /** The pool that a logical volume is in; empty for one beside it. */
  poolOf(name: string): string | undefined {
    return this.#lvs.get(name)?.pool;
  }

  /** Those that are tagged as removed and needed by nothing. */
  over(): string[] {
    return [...this.#lvs.values()]
      .filter(({ name, tags }) => tags.has("libstorage:removed") && !this.isKeptFor(name))
      .map(({ name }) => name);
  }

  /** Whether it is kept, tagged as removed, for snapshots that need it. */
  isKeptFor(name: string): boolean {
    const isNeeded = [...this.#lvs.values()].some(
      ({ origin, pool }) => origin === name && pool === "",
    );
    return isNeeded && this.#lvs.get(name)?.tags.has("libstorage:removed") === true;
  }

  names(): string[] {
    return [...this.#lvs.keys()];
  }

  #new(name: string, sizeBytes: number, tags: readonly string[]): Lv {
    return { name, sizeBytes, tags: new Set(tags), origin: "", pool: "", isActive: false };
  }

  run(file: string, args: readonly string[], input = ""): Ended {
    const line = [file, ...args].join(" ");
    this.lines.push(line);
    if (this.refuse?.test(line) === true)
      return { stdout: "", stderr: `  ${this.refusal}\n`, exitCode: 5 };
    try {
      return { stdout: this.#run(file, args, input), stderr: "", exitCode: 0 };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { stdout: "", stderr: `  ${error.message}\n`, exitCode: 5 };
    }
  }

  #run(file: string, args: readonly string[], input: string): string {
    switch (file) {
      case "lvs":
        return this.#report(args);
      case "vgs":
        return this.#vgs();
      case "lvcreate":
        return this.#create(args);
      case "lvchange":
        return this.#change(args);
      case "lvextend":
        return this.#extend(args);
      case "lvrename":
        return this.#rename(args);
      case "lvconvert":
        return this.#split(args);
      case "lvremove":
        return this.#remove(args);
      case "lvm":
        return args[0] === "version" ? "  LVM version:     2.03.16(2)\n" : this.#shell(input);
      default:
        // dd, blkdiscard, wipefs: there is no data.
        return "";
    }
  }

  /** Each line is a command; LVM tells after each how it ended. */
  #shell(input: string): string {
    const ends = input
      .trim()
      .split("\n")
      .map((line) => {
        const [file = "", ...args] = line.replace(/--config '[^']*' /, "").split(" ");
        const code = this.run(file, args).exitCode === 0 ? 1 : 5;
        return `{"log":[{"log_type":"status", "log_context":"shell", "log_object_type":"cmd", "log_object_name":"${file}", "log_ret_code":"${code}"}]}`;
      });
    return ends.join("\n");
  }

  #existing(path: string): Lv {
    const lv = this.#lvs.get(path.slice(this.#group.length + 1));
    if (lv === undefined) throw new Refusal(`Failed to find logical volume "${path}"`);
    return lv;
  }

  #create(args: readonly string[]): string {
    const [name = ""] = valuesOf(args, "-n");
    const path = args.at(args.at(-2) === "-n" ? -3 : -1) ?? "";
    const tags = valuesOf(args, "--addtag");
    const isSnapshot = args.includes("-s");
    const from = isSnapshot ? this.#lvs.get(path.slice(this.#group.length + 1)) : undefined;
    if (isSnapshot && from === undefined)
      throw new Refusal(`Snapshot origin LV ${path} not found in Volume group ${this.#group}.`);
    if (this.#lvs.has(name))
      throw new Refusal(`Logical Volume "${name}" already exists in volume group "${this.#group}"`);
    const [size = `${from?.sizeBytes ?? 0}b`] = [...valuesOf(args, "-V"), ...valuesOf(args, "-L")];
    const bytes = Math.ceil(Number(size.slice(0, -1)) / EXTENT) * EXTENT;
    const lv = this.#new(name, bytes, tags);
    if (lv.sizeBytes > TOTAL)
      throw new Refusal(
        `Volume group "${this.#group}" has insufficient free space (1 extents): 2 required.`,
      );
    lv.origin = from?.name ?? "";
    lv.pool = from?.pool ?? (valuesOf(args, "-T")[0] ?? "").slice(this.#group.length + 1);
    this.#lvs.set(name, lv);
    this.#seqno += 1;
    return "";
  }

  #change(args: readonly string[]): string {
    const lv = this.#existing(args.at(-1) ?? "");
    if (args.includes("-ay")) lv.isActive = true;
    if (args.includes("-an")) lv.isActive = false;
    for (const tag of valuesOf(args, "--deltag")) lv.tags.delete(tag);
    for (const tag of valuesOf(args, "--addtag")) lv.tags.add(tag);
    this.#seqno += 1;
    return "";
  }

  #extend(args: readonly string[]): string {
    const lv = this.#existing(args.at(-1) ?? "");
    const [metadata] = valuesOf(args, "--poolmetadatasize");
    if (metadata !== undefined) {
      this.#metadataBytes = Number(metadata.slice(0, -1));
      this.#seqno += 1;
      return "";
    }
    const bytes = Number((valuesOf(args, "-L")[0] ?? "").slice(0, -1));
    if (bytes === lv.sizeBytes)
      throw new Refusal("New size (2 extents) matches existing size (2 extents).");
    lv.sizeBytes = bytes;
    this.#seqno += 1;
    return "";
  }

  #rename([group, from = "", to = ""]: readonly string[]): string {
    const lv = this.#lvs.get(from);
    if (lv === undefined)
      throw new Refusal(`Existing logical volume "${from}" not found in volume group "${group}"`);
    if (this.#lvs.has(to))
      throw new Refusal(`Logical Volume "${to}" already exists in volume group "${group}"`);
    this.#lvs.delete(from);
    this.#lvs.set(to, { ...lv, name: to });
    for (const other of this.#lvs.values()) if (other.origin === from) other.origin = to;
    this.#seqno += 1;
    return "";
  }

  #split(args: readonly string[]): string {
    const lv = this.#existing(args.at(-1) ?? "");
    if (!args.includes("--splitsnapshot") || lv.origin === "" || lv.pool !== "")
      throw new Refusal(`Command on LV ${this.#group}/${lv.name} does not accept LV type linear.`);
    lv.origin = "";
    this.#seqno += 1;
    return "";
  }

  #remove(args: readonly string[]): string {
    for (const path of args.filter((arg) => !arg.startsWith("-"))) {
      const { name } = this.#existing(path);
      this.#lvs.delete(name);
      for (const other of [...this.#lvs.values()].filter(({ origin }) => origin === name))
        // A classic snapshot dies with its origin.
        if (other.pool === "") this.#lvs.delete(other.name);
        else other.origin = "";
      this.#seqno += 1;
    }
    return "";
  }

  #report(args: readonly string[]): string {
    const [key, only] = valuesOf(args, "-S")[0]?.replaceAll('"', "").split("=") ?? [];
    const lvs = [...this.#lvs.values()].filter(
      ({ name, origin }) => key === undefined || (key === "origin" ? origin : name) === only,
    );
    return JSON.stringify({ report: [{ lv: lvs.map((lv) => this.#row(lv)) }] });
  }

  #row(lv: Lv): Readonly<Record<string, string>> {
    const isPool =
      [...this.#lvs.values()].some(({ pool }) => pool === lv.name) || lv.name === "pool";
    const origin = this.#lvs.get(lv.origin);
    return {
      lv_name: lv.name,
      lv_uuid: uuidOf(lv.name),
      vg_uuid: uuidOf(this.#group),
      vg_seqno: String(this.#seqno),
      lv_size: String(lv.sizeBytes),
      lv_tags: [...lv.tags].join(","),
      origin: lv.origin,
      origin_size: lv.pool === "" && origin !== undefined ? String(origin.sizeBytes) : "",
      pool_lv: lv.pool,
      segtype: isPool ? "thin-pool" : lv.pool === "" ? "linear" : "thin",
      lv_active: lv.isActive || isPool ? "active" : "",
      lv_health_status: this.missingDisks > 0 ? "partial" : isPool ? this.#health : "",
      lv_snapshot_invalid: this.overflowed.has(lv.name) ? "snapshot invalid" : "unknown",
      data_percent: isPool ? this.#fill.data.toFixed(2) : "",
      metadata_percent: isPool ? this.#fill.metadata.toFixed(2) : "",
      lv_metadata_size: isPool ? String(this.#metadataBytes) : "",
      zero: isPool ? (this.isZeroing ? "zero" : "") : "unknown",
    };
  }

  #vgs(): string {
    const row = {
      vg_name: this.#group,
      vg_seqno: String(this.#seqno),
      vg_extent_size: String(EXTENT),
      vg_free: String(TOTAL / 2),
      vg_size: String(TOTAL),
      vg_missing_pv_count: String(this.missingDisks),
      vg_exported: this.isExported ? "exported" : "",
      vg_lock_type: this.lockType,
      vg_mda_size: "1044480",
      vg_mda_free: "517120",
    };
    return JSON.stringify({ report: [{ vg: [row] }] });
  }
}
