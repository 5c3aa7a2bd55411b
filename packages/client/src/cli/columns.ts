/** Rows of text in columns, for people. */

const CONTROL = /[\p{Cc}\p{Cf}\u2028\u2029]/gu;

/** Names come from a server: what would move the cursor or turn the text around is shown, not obeyed. */
export function printable(text: string): string {
  return text.replace(CONTROL, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`);
}

/** East Asian wide characters and emoji take two cells of a terminal. */
const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/gu;
const COMBINING = /\p{M}/gu;

function width(text: string): number {
  // oxlint-disable-next-line no-control-regex
  if (/^[\x00-\x7f]*$/.test(text)) return text.length;
  const wide = text.match(WIDE)?.length ?? 0;
  return Array.from(text.replace(COMBINING, "")).length + wide;
}

/** Columns as wide as their widest cell, two blanks between, nothing after the last. */
export function columns(rows: readonly (readonly string[])[]): string {
  const clean = rows.map((row) => row.map(printable));
  const widths: number[] = [];
  for (const row of clean)
    row.forEach((cell, index) => {
      widths[index] = Math.max(widths[index] ?? 0, width(cell));
    });
  return clean
    .map((row) =>
      row
        .map((cell, index) =>
          index === row.length - 1
            ? cell
            : cell + " ".repeat((widths[index] ?? 0) - width(cell) + 2),
        )
        .join("")
        .trimEnd(),
    )
    .join("\n");
}
