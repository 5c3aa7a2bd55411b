/** The executors that 0.6.2 clients download, section 17.2 of the contract. */
import { createHash } from "node:crypto";
import { lstat, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { notFound, sorted } from "@libstorage/model";
import type { ExecutorInfo } from "@libstorage/model";

export interface Executor {
  readonly info: ExecutorInfo;
  readonly content: Buffer;
}

/** The files of one folder, read again only when they change. */
export class Executors {
  readonly #folder: string | undefined;
  readonly #read = new Map<string, { readonly stamp: string; readonly executor: Executor }>();

  constructor(folder: string | undefined) {
    this.#folder = folder;
  }

  async list(): Promise<Record<string, ExecutorInfo>> {
    if (this.#folder === undefined) return {};
    const entries = await readdir(this.#folder, { withFileTypes: true }).catch(() => []);
    const found: Record<string, ExecutorInfo> = {};
    for (const entry of entries)
      if (isName(entry.name) && entry.isFile())
        found[entry.name] = (await this.get(entry.name)).info;
    return sorted(found);
  }

  /** @throws {StorageError} `not-found` */
  async get(name: string): Promise<Executor> {
    if (this.#folder === undefined || !isName(name)) throw notFound("executor", name);
    const path = join(this.#folder, name);
    const found = await lstat(path).catch(() => undefined);
    if (found?.isFile() !== true) throw notFound("executor", name);
    const stamp = `${found.size} ${found.mtimeMs}`;
    const known = this.#read.get(name);
    if (known?.stamp === stamp) return known.executor;
    const content = await readFile(path);
    const info: ExecutorInfo = {
      name,
      md5checksum: createHash("md5").update(content).digest("hex"),
      size: content.length,
      lastModified: Math.floor(found.mtimeMs / 1000),
    };
    const executor = { info, content };
    this.#read.set(name, { stamp, executor });
    return executor;
  }
}

/** A plain file name, so that nothing outside the folder is reached. */
function isName(name: string): boolean {
  return /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(name);
}

/** Header names and values by turns. The date ends in `UTC`, as the reference writes it. */
export function executorHeaders({ info }: Executor): string[] {
  const modified = new Date(info.lastModified * 1000).toUTCString().replace(/GMT$/, "UTC");
  return [
    "Accept-Ranges",
    "bytes",
    "Content-Md5",
    Buffer.from(info.md5checksum, "hex").toString("base64"),
    "Content-Type",
    "application/octet-stream",
    "Last-Modified",
    modified,
  ];
}
