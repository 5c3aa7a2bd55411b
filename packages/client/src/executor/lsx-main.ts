/** The start of the program `lsx`. */
import { lsx } from "./lsx.js";

void lsx(process.argv.slice(2), process.env).then(({ exit, stdout = "", stderr = "" }) => {
  process.exitCode = exit;
  process.stderr.write(stderr);
  process.stdout.write(stdout);
});
