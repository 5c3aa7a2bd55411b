// Lint and format check; the lint asks the type checker, which needs the build. `npm run lint`
import { build, install, run } from "./setup.mjs";

install();
build();
const npx = (name, args) => run("npx", ["--no-install", name, ...args]);
const linted = npx("oxlint", ["--type-aware", "--deny-warnings"]);
const formatted = npx("oxfmt", ["--check", "."]);
process.exit(linted === 0 ? formatted : linted);
