/**
 * The wildcards of the files that hypervisors may use. A path fits one as POSIX's fnmatch says with
 * FNM_PATHNAME: `*`, `?` and `[…]` match no slash, and nothing else is special.
 */
import { realpath } from "node:fs/promises";
import { dirname, posix } from "node:path";
import { Minimatch } from "minimatch";
import type { MinimatchOptions } from "minimatch";

/** What makes of minimatch an fnmatch; a test compares it with the C library's. */
const AS_FNMATCH: MinimatchOptions = {
  dot: true,
  nobrace: true,
  nocomment: true,
  noext: true,
  noglobstar: true,
  nonegate: true,
  optimizationLevel: 0,
  platform: "linux",
  preserveMultipleSlashes: true,
};

/** Whether a path fits a wildcard as `fnmatch(pattern, path, FNM_PATHNAME)` says. */
export function isMatch(pattern: string, path: string): boolean {
  return new Minimatch(pattern, AS_FNMATCH).match(path);
}

/** One member of a bracket, or a class of characters; libraries differ on the other `[` in one. */
const MEMBER = String.raw`\[:[a-z]+:\]|\[(?![:.=])|\\[^/]|[^\]\\/[]`;
const BRACKET = String.raw`\[(?:[!^](?:\]|${MEMBER})|(?![!^])(?:\]|${MEMBER}))(?:${MEMBER})*\]`;

/** Every bracket ends before the next slash: one that does not is read in ways of its own by each library. */
const WELL_FORMED = new RegExp(String.raw`^(?:\\.|${BRACKET}|[^[\\])*$`, "u");

/** What is wrong with a location's wildcard, or undefined. */
export function problemOfLocation(pattern: string): string | undefined {
  if (!pattern.startsWith("/")) return "must begin with /";
  if (posix.normalize(pattern) !== pattern || pattern.endsWith("/"))
    return 'must be a plain path: without "//", "." or ".." as parts, or a slash at its end';
  if (/\p{Cc}/u.test(pattern)) return "must have no control characters";
  if (!WELL_FORMED.test(pattern))
    return 'has a "[" that is not closed before the next slash, or a backslash at its end; write "\\[" for a plain one';
  return undefined;
}

function escaped(path: string): string {
  return path.replace(/[\\*?[]/g, "\\$&");
}

const SPECIAL = /[\\*?[]/;

/**
 * The wildcard with the links in its plain leading folders followed: those are the administrator's own,
 * such as a `/var/lib/images` that lies on another disk.
 */
async function withoutLinks(pattern: string): Promise<string> {
  const segments = pattern.split("/");
  const first = segments.findIndex((segment) => SPECIAL.test(segment));
  const end = Math.min(first === -1 ? segments.length : first, segments.length - 1);
  const folder = segments.slice(0, end).join("/");
  const real = folder === "" ? "" : await realpath(folder).catch(() => folder);
  return [escaped(real === "/" ? "" : real), ...segments.slice(end)].join("/");
}

/** Which paths a hypervisor may name, and where they may lead. */
export class Locations {
  readonly patterns: readonly string[];

  /** @param patterns without problems */
  constructor(patterns: readonly string[]) {
    this.patterns = patterns;
  }

  /** Whether a path as it was asked for lies in a location. */
  hasFile(path: string): boolean {
    return this.patterns.some((pattern) => isMatch(pattern, path));
  }

  /** Whether it is a location's folder: what is asked about free space before there is a file. */
  hasFolder(path: string): boolean {
    return this.patterns.some((pattern) => isMatch(dirname(pattern), path));
  }

  /** Whether a path without any link lies in a location. */
  async hasRealFile(path: string): Promise<boolean> {
    const patterns = await Promise.all(this.patterns.map(withoutLinks));
    return patterns.some((pattern) => isMatch(pattern, path));
  }

  async hasRealFolder(path: string): Promise<boolean> {
    const patterns = await Promise.all(this.patterns.map(withoutLinks));
    return patterns.some((pattern) => isMatch(dirname(pattern), path));
  }
}
