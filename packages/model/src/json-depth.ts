/** How deep JSON may be nested: V8 reads any depth, but writing it again fills the stack. */
export const MAX_JSON_DEPTH = 64;

/** Whether a value from JSON has more levels. Walks level by level, so that it cannot fill the stack itself. */
export function isDeeperThan(value: unknown, levels: number): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > levels) return true;
    level = level.flatMap((item) =>
      typeof item === "object" && item !== null ? Object.values(item) : [],
    );
  }
  return false;
}
