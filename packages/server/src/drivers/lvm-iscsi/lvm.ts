/** LVM's commands: arguments out, reports in. @see lvcreate(8), lvchange(8), lvs(8) */
import type { OpContext } from "../../core/driver.js";
import { failureOf } from "./failures.js";
import type { About } from "./failures.js";
import { patient } from "./patience.js";
import { LVM_ENV, LVM_LIMIT_MS, LvmQueue } from "./queue.js";
import { LV_COLUMNS, parseLvs, parseVgs, VG_COLUMNS } from "./reports.js";
import type { LvRow, VgRow } from "./reports.js";

type Context = Pick<OpContext, "exec" | "signal" | "log">;

const REPORT = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o"];

/** One new logical volume, in one command with its tags. */
export interface NewLv {
  readonly name: string;
  readonly tags: readonly string[];
}

function added(tags: readonly string[]): string[] {
  return tags.flatMap((tag) => ["--addtag", tag]);
}

/** One that is activated only where the driver says so, and at no boot. */
const ASLEEP = ["-y", "-ky"];

export class Lvm {
  about: About;
  readonly #queue = new LvmQueue();

  constructor(about: About) {
    this.about = about;
  }

  path(name: string): string {
    return `${this.about.group}/${name}`;
  }

  /** Its device while it is active. */
  device(name: string): string {
    return `/dev/${this.about.group}/${name}`;
  }

  // ---- what there is

  async #report(command: string, args: readonly string[], context: Context): Promise<string> {
    const { signal, release } = patient(context.signal);
    try {
      const options = { env: LVM_ENV, timeoutMs: LVM_LIMIT_MS };
      return (await context.exec(command, [...REPORT, ...args], signal, options)).stdout;
    } finally {
      release();
    }
  }

  /** Every logical volume of the group that is not a part of another. */
  async lvs(context: Context): Promise<LvRow[]> {
    try {
      return parseLvs(await this.#report("lvs", [LV_COLUMNS, this.about.group], context));
    } catch (error) {
      throw failureOf(error, `list the volume group ${this.about.group}`, this.about);
    }
  }

  /** One of them. Asked for by name among all, so that one that is not there is no failure. */
  async lv(name: string, context: Context): Promise<LvRow | undefined> {
    const only = ["-S", `lv_name=${name}`];
    try {
      const report = await this.#report("lvs", [LV_COLUMNS, ...only, this.about.group], context);
      return parseLvs(report)[0];
    } catch (error) {
      throw failureOf(error, `inspect ${this.path(name)}`, this.about);
    }
  }

  /** Those that have this one as their origin, and go with it where it is none of a pool. */
  async snapshotsOf(name: string, context: Context): Promise<LvRow[]> {
    const only = ["-S", `origin="${name}"`];
    try {
      const report = await this.#report("lvs", [LV_COLUMNS, ...only, this.about.group], context);
      return parseLvs(report);
    } catch (error) {
      throw failureOf(error, `look for snapshots of ${this.path(name)}`, this.about);
    }
  }

  async vg(context: Context): Promise<VgRow | undefined> {
    const { group } = this.about;
    try {
      return parseVgs(await this.#report("vgs", [VG_COLUMNS, group], context))[0];
    } catch (error) {
      throw failureOf(error, `use the volume group ${group}`, this.about);
    }
  }

  // ---- changes; each one is there or not, whenever it is cut

  async createThick({ name, tags }: NewLv, sizeBytes: number, context: Context): Promise<void> {
    // It is wiped before anyone gets it, not now: it stays inactive until then.
    const size = ["-Zn", "-Wn", "-L", `${sizeBytes}b`];
    const args = [...ASLEEP, ...size, ...added(tags), "-n", name, this.about.group];
    await this.#queue.run(["lvcreate", ...args], context);
  }

  async createThin({ name, tags }: NewLv, sizeBytes: number, context: Context): Promise<void> {
    const size = ["-V", `${sizeBytes}b`, "-T", this.path(this.about.pool ?? "")];
    const args = [...ASLEEP, ...size, ...added(tags), "-n", name];
    await this.#queue.run(["lvcreate", ...args], context);
  }

  /** A thin volume that shares its blocks with another. */
  async snapThin(
    from: string,
    { name, tags }: NewLv,
    access: "r" | "rw",
    context: Context,
  ): Promise<void> {
    const args = [...ASLEEP, "-s", `-p${access}`, ...added(tags), "-n", name, this.path(from)];
    await this.#queue.run(["lvcreate", ...args], context);
  }

  /** A snapshot with space of its own, for what changes in its origin. */
  async snapThick(
    from: string,
    { name, tags }: NewLv,
    percent: number,
    context: Context,
  ): Promise<void> {
    const size = ["-s", "-l", `${percent}%ORIGIN`];
    const args = [...ASLEEP, ...size, ...added(tags), "-n", name, this.path(from)];
    await this.#queue.run(["lvcreate", ...args], context);
  }

  async retag(
    name: string,
    before: readonly string[],
    after: readonly string[],
    context: Context,
  ): Promise<void> {
    const gone = before.filter((tag) => !after.includes(tag));
    const fresh = after.filter((tag) => !before.includes(tag));
    if (gone.length === 0 && fresh.length === 0) return;
    const args = [...gone.flatMap((tag) => ["--deltag", tag]), ...added(fresh)];
    await this.#queue.run(["lvchange", ...args, this.path(name)], context);
  }

  async rename(name: string, newName: string, context: Context): Promise<void> {
    await this.#queue.run(["lvrename", this.about.group, name, newName], context);
  }

  async activate(name: string, context: Context): Promise<void> {
    await this.#queue.run(["lvchange", "-y", "-ay", "-K", this.path(name)], context);
  }

  /** Fails while anything has it open, which proves that nothing has when it succeeds. */
  async deactivate(name: string, context: Context): Promise<void> {
    await this.#queue.run(["lvchange", "-y", "-an", this.path(name)], context);
  }

  async extend(name: string, sizeBytes: number, context: Context): Promise<void> {
    await this.#queue.run(["lvextend", "-L", `${sizeBytes}b`, this.path(name)], context);
  }

  async extendMetadata(name: string, sizeBytes: number, context: Context): Promise<void> {
    const size = ["--poolmetadatasize", `${sizeBytes}b`];
    await this.#queue.run(["lvextend", ...size, this.path(name)], context);
  }

  /**
   * Makes a snapshot with space of its own an ordinary volume, in which its origin's blocks stand as they were
   * kept. It is what `lvremove` begins with. @see lvconvert(8)
   */
  async split(name: string, context: Context): Promise<void> {
    await this.#queue.run(["lvconvert", "-y", "--splitsnapshot", this.path(name)], context);
  }

  async remove(names: readonly string[], context: Context): Promise<void> {
    const paths = names.map((name) => this.path(name));
    await this.#queue.run(["lvremove", "-y", ...paths], context);
  }
}
