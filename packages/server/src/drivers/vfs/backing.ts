/** Plain folders: copied by cp, limited by project quota. */
import { statSync } from "node:fs";
import type { Ability, OpContext, VolumeRecord } from "../../core/driver.js";
import type { Backing, Purpose } from "../folders/backing.js";
import { abilitiesOf } from "./abilities.js";
import { copyTree } from "../folders/cp.js";
import { projectIDOf } from "./quota.js";
import type { QuotaFinding } from "./quota.js";
import { syncFileSystem } from "./sync.js";
import { tarStreams } from "./tar-streams.js";

/** As the reference makes them; the root's own mode keeps others out. */
const DATA_MODE = 0o755;

const DEFERRED = { isSyncDeferred: true };

export class PlainFolders implements Backing {
  readonly isAtomic = false;
  readonly streams = tarStreams((path, purpose, context) => this.make(path, purpose, context));
  readonly #root: string;
  readonly #finding: QuotaFinding;

  constructor(root: string, finding: QuotaFinding) {
    this.#root = root;
    this.#finding = finding;
  }

  async make(path: string, purpose: Purpose, context: OpContext): Promise<void> {
    await context.files.makeFolder(path, DATA_MODE, DEFERRED);
    await this.#prepare(path, purpose, context);
  }

  async copy(from: string, to: string, purpose: Purpose, context: OpContext): Promise<void> {
    if (purpose.projectID !== undefined) await this.make(to, purpose, context);
    await copyTree(from, to, context);
    await syncFileSystem(context, to);
  }

  discard(path: string, { files }: OpContext): Promise<void> {
    return files.removeTree(path, DEFERRED);
  }

  /** Before data comes into the folder, so that it gets its project with its name. */
  async #prepare(path: string, { projectID, sizeBytes }: Purpose, context: OpContext) {
    const { quota } = this.#finding;
    if (quota === undefined || projectID === undefined) return;
    await quota.assign(path, projectID, context);
    await quota.limit(projectID, sizeBytes, context);
  }

  /** A volume that was made without limits only gets its project now. */
  async limit(
    path: string,
    { id, sizeBytes }: VolumeRecord,
    recorded: number | undefined,
    context: OpContext,
  ): Promise<number | undefined> {
    const { quota } = this.#finding;
    if (quota === undefined || sizeBytes === 0) return recorded;
    const projectID = recorded ?? this.#projectID(id);
    if (recorded === undefined) await quota.adopt(path, projectID, context);
    await quota.limit(projectID, sizeBytes, context);
    return projectID;
  }

  #projectID(id: string): number {
    return projectIDOf(statSync(this.#root).ino, id);
  }

  projectIDOf({ id, sizeBytes }: Pick<VolumeRecord, "id" | "sizeBytes">): number | undefined {
    const isLimited = this.#finding.quota !== undefined && sizeBytes > 0;
    return isLimited ? this.#projectID(id) : undefined;
  }

  /** A root that was moved has another inode: the record knows the project that was given. */
  async forget(id: string, recorded: number | undefined, context: OpContext): Promise<void> {
    await this.#finding.quota?.limit(recorded ?? this.#projectID(id), 0, context);
  }

  abilities(): Promise<readonly Ability[]> {
    return abilitiesOf(this.#root, this.#finding);
  }
}
