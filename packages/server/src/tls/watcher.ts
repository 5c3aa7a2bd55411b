/** Takes over new certificates when their files change; a broken set changes nothing. */
import { watch } from "node:fs";
import type { FSWatcher } from "node:fs";
import { dirname } from "node:path";
import type { CertificateHealth, TlsSettings } from "@libstorage/model";
import type { Logger } from "../core/log.js";
import { certificateHealth, filesOf, loadMaterial } from "./material.js";
import type { TlsMaterial } from "./material.js";

/** Certificate and key are written one after the other. */
const SETTLE_MS = 300;
/** How long a set may stay broken before it is worth a warning. */
const PATIENCE_MS = 2_000;
/** For file systems that tell of no change, and for links into other folders. */
const POLL_MS = 60_000;
const EXPIRY_CHECK_MS = 12 * 3_600_000;
const WARN_DAYS = 30;

export class TlsWatcher {
  #tls: TlsSettings;
  #material: TlsMaterial;
  readonly #log: Logger;
  readonly #listeners = new Set<(material: TlsMaterial) => void>();
  #watchers: FSWatcher[] = [];
  #settle: NodeJS.Timeout | undefined;
  #brokenSince: number | undefined;
  #complaint = "";
  readonly #timers: readonly NodeJS.Timeout[];

  /** @throws {TlsMaterialError} when the files cannot be used now */
  constructor(tls: TlsSettings, log: Logger) {
    this.#tls = tls;
    this.#log = log;
    this.#material = loadMaterial(tls);
    this.#warn();
    this.#watch();
    this.#timers = [
      setInterval(() => this.#look(), POLL_MS).unref(),
      setInterval(() => this.#warnOfEnd(), EXPIRY_CHECK_MS).unref(),
    ];
  }

  get tls(): TlsSettings {
    return this.#tls;
  }

  get material(): TlsMaterial {
    return this.#material;
  }

  certificates(): readonly CertificateHealth[] {
    return certificateHealth(this.#material);
  }

  onChange(listener: (material: TlsMaterial) => void): void {
    this.#listeners.add(listener);
  }

  /** Other settings from now on. @throws {TlsMaterialError} and keeps the old ones */
  use(tls: TlsSettings): void {
    const material = loadMaterial(tls);
    this.#tls = tls;
    this.#watch();
    if (material.digest !== this.#material.digest) this.#take(material);
  }

  close(): void {
    for (const timer of this.#timers) clearInterval(timer);
    clearTimeout(this.#settle);
    for (const watcher of this.#watchers) watcher.close();
    this.#watchers = [];
    this.#listeners.clear();
  }

  // Folders, not files: a renewed file is mostly a new one under the old name.
  #watch(): void {
    for (const watcher of this.#watchers) watcher.close();
    const folders = new Set(filesOf(this.#tls).map((file) => dirname(file)));
    this.#watchers = [...folders].flatMap((folder) => {
      try {
        const watcher = watch(folder, { persistent: false }, () => this.#soon(SETTLE_MS));
        watcher.on("error", (error) => this.#log.debug({ folder, error: error.message }, "watch"));
        return [watcher];
      } catch {
        // Without a watch the poll still finds the change.
        return [];
      }
    });
  }

  #soon(ms: number): void {
    clearTimeout(this.#settle);
    this.#settle = setTimeout(() => this.#look(), ms).unref();
  }

  #look(): void {
    try {
      const material = loadMaterial(this.#tls);
      this.#brokenSince = undefined;
      this.#complaint = "";
      if (material.digest !== this.#material.digest) this.#take(material);
    } catch (error) {
      this.#wait(error instanceof Error ? error.message : String(error));
    }
  }

  #wait(problem: string): void {
    this.#brokenSince ??= Date.now();
    if (Date.now() - this.#brokenSince < PATIENCE_MS) this.#soon(SETTLE_MS);
    else if (this.#complaint !== problem) {
      this.#complaint = problem;
      this.#log.warn({ problem }, "new TLS files cannot be used; the old ones stay in use");
    }
  }

  #take(material: TlsMaterial): void {
    this.#material = material;
    for (const listener of this.#listeners) listener(material);
    const [own] = material.certificates;
    this.#log.info(
      { file: own?.file, fingerprint: own?.certificate.fingerprint256 },
      "TLS files were read anew",
    );
    this.#warn();
  }

  #warn(): void {
    for (const warning of this.#material.warnings) this.#log.warn({}, warning);
    this.#warnOfEnd();
  }

  #warnOfEnd(): void {
    for (const { file, subject, notAfter, daysLeft } of this.certificates())
      if (daysLeft < WARN_DAYS)
        this.#log.warn(
          { file, subject, notAfter, daysLeft },
          daysLeft < 0 ? "a certificate has ended" : "a certificate ends soon; renew it",
        );
  }
}
