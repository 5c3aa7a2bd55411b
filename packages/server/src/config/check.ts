/** Takes values out of a configuration by their specs, and notes what is wrong with them. */
import * as v from "valibot";
import type { ConfigProblem, Found, ScopedConfig } from "@libstorage/model";
import type { KeySpec } from "./keys.js";

export class Checker {
  readonly problems: ConfigProblem[] = [];

  note(path: string, message: string): void {
    this.problems.push({ path, message });
  }

  /** @returns undefined when the key is not set and has no default, or when its value is wrong */
  read<T>(spec: KeySpec<T>, config: ScopedConfig): T | undefined {
    const found = config.findFirst([...(spec.before ?? []), spec.key]);
    if (found === undefined) return defaultOf(spec);
    return this.take(spec, found) ?? defaultOf(spec);
  }

  /** The value at exact places, for keys that must not be looked for further out. */
  readAt<T>(spec: KeySpec<T>, config: ScopedConfig, places: readonly string[]): T | undefined {
    const found = config.findAt(places);
    return found === undefined ? undefined : this.take(spec, found);
  }

  take<T>(spec: KeySpec<T>, found: Found): T | undefined {
    const result = v.safeParse(spec.schema, found.value);
    if (result.success) return result.output;
    const shown = spec.isSecret === true ? "" : `, not ${show(found.value)}`;
    this.note(found.path, `${result.issues[0].message}${shown}`);
    return undefined;
  }
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** The default as the schema reads it. Defaults that name a folder (`<lib>/…`) are the reader's own. */
export function defaultOf<T>(spec: KeySpec<T>): T | undefined {
  if (spec.fallback === "" || spec.fallback.startsWith("<")) return undefined;
  return v.parse(spec.schema, spec.fallback);
}

/** For keys whose default always exists. */
export function required<T>(value: T | undefined, spec: KeySpec<T>): T {
  if (value === undefined) throw new Error(`the key ${spec.key} has no default`);
  return value;
}
