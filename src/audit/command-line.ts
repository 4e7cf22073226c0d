/** A command of ours as a line that can be pasted into a shell: every word quoted where it has to be. */

const PLAIN = /^[\w@%+=:,./-]+$/
const UNPRINTABLE = /[^\x20-\x7e]/g

/** `folder` null: a store in memory, and the reader says which store is meant. */
export function commandLine(folder: string | null, words: readonly string[]): string {
  const store = folder === null ? [] : ['--store', folder]
  return ['slicelog', ...store, ...words].map(quoted).join(' ')
}

function quoted(word: string): string {
  if (PLAIN.test(word)) return word
  const plain = word.replaceAll("'", "'\\''")
  if (!/[^\x20-\x7e]/.test(word)) return `'${plain}'`
  // Bytes that a terminal might act on are written out, as bash and zsh read them.
  const escaped = word.replaceAll('\\', '\\\\').replaceAll("'", "\\'")
  return `$'${escaped.replace(UNPRINTABLE, bytesOf)}'`
}

function bytesOf(char: string): string {
  return [...Buffer.from(char, 'utf8')].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')
}
