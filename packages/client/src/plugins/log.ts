/** One line of JSON per operation, to standard error. */

type Level = "info" | "warn" | "error";

export interface PluginLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** @param always members of each line */
export function openPluginLog(
  always: object,
  write: (line: string) => void = (line) => void process.stderr.write(line),
): PluginLog {
  const line = (level: Level, fields: object, message: string): void => {
    const time = new Date().toISOString();
    write(`${JSON.stringify({ level, time, ...always, ...fields, msg: message })}\n`);
  };
  return {
    info: (fields, message) => line("info", fields, message),
    warn: (fields, message) => line("warn", fields, message),
    error: (fields, message) => line("error", fields, message),
  };
}
