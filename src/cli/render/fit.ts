/** Words in a room of so many columns: how wide they are, cut, or on several lines. Colours come after. */

/** Characters that take two columns, and those that take none, as terminals have it. */
const WIDE =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}\u3000-\u303f\uff01-\uff60]/u
const NONE = /[\p{Mn}\p{Me}\p{Cf}]/u

function columnsOfOne(char: string): number {
  if (char.length === 1 && char < '\u0300') return 1
  if (NONE.test(char)) return 0
  return WIDE.test(char) ? 2 : 1
}

export function columnsOf(words: string): number {
  let columns = 0
  for (const char of words) columns += columnsOfOne(char)
  return columns
}

/** The head of the words that fits, in characters as they are. */
function headOf(words: string, room: number): string {
  let columns = 0
  let end = 0
  for (const char of words) {
    columns += columnsOfOne(char)
    if (columns > room) break
    end += char.length
  }
  return words.slice(0, end)
}

/** At most `room` columns, the last being an ellipsis where some are missing. */
export function cut(words: string, room: number): string {
  return columnsOf(words) <= room ? words : `${headOf(words, room - 1)}…`
}

/** Lines of at most `room` columns (2 or more), broken at blanks, and inside a word only where it alone is longer. Nothing is lost but the blanks. */
export function folded(words: string, room: number): string[] {
  const lines: string[] = []
  let left = words
  while (columnsOf(left) > room) {
    const head = headOf(left, room)
    const blank = left[head.length] === ' ' ? head.length : head.lastIndexOf(' ')
    const end = blank > 0 ? blank : head.length
    lines.push(left.slice(0, end).trimEnd())
    left = left.slice(end).trimStart()
  }
  return [...lines, left]
}
