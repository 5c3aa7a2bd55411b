import { booleanOf, parseDuration } from "@libstorage/model";
import type { ConfigProblem, Found, ScopedConfig } from "@libstorage/model";

/** Reads single values, and notes those that cannot be used. */
export class SettingReader {
  readonly config: ScopedConfig;
  readonly problems: ConfigProblem[] = [];

  constructor(config: ScopedConfig) {
    this.config = config;
  }

  text(...keys: string[]): string | undefined {
    const found = this.config.findFirst(keys);
    if (found === undefined) return undefined;
    const { value } = found;
    if (typeof value === "string") return value;
    if (typeof value === "number" || typeof value === "boolean") return String(value);
    return this.#bad(found, "must be a text");
  }

  flag(fallback: boolean, ...keys: string[]): boolean {
    const found = this.config.findFirst(keys);
    if (found === undefined) return fallback;
    return booleanOf(found.value) ?? this.#bad(found, "must be true or false") ?? fallback;
  }

  /** A whole number of at least 0. */
  count(fallback: number, ...keys: string[]): number {
    const found = this.config.findFirst(keys);
    if (found === undefined) return fallback;
    const value = Number(found.value);
    if (Number.isSafeInteger(value) && value >= 0 && found.value !== "") return value;
    return this.#bad(found, "must be a whole number, 0 or more") ?? fallback;
  }

  /** Milliseconds. */
  duration(fallbackMs: number, ...keys: string[]): number {
    const found = this.config.findFirst(keys);
    if (found === undefined) return fallbackMs;
    const value = parseDuration(String(found.value));
    return value ?? this.#bad(found, "must be a duration such as 30s, 5m or 1h") ?? fallbackMs;
  }

  choice<T extends string>(fallback: T, words: readonly T[], ...keys: string[]): T {
    const found = this.config.findFirst(keys);
    if (found === undefined) return fallback;
    const word = words.find((one) => one === String(found.value).toLowerCase());
    return word ?? this.#bad(found, `must be one of ${words.join(", ")}`) ?? fallback;
  }

  #bad(found: Found, message: string): undefined {
    this.problems.push({ path: found.path, message });
    return undefined;
  }
}
