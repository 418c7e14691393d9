def forked(context, ending)
  pid = fork
  if pid
    Process.wait(pid)
    return context.res.text("parent")
  end
  context.log("child")
  exit(1) if ending == "exit"
  raise "child" if ending == "throw"
  context.res.text("child")
end

def main(context)
  req, res = context.req, context.res
  case req.path
  when "/enforced"
    h = req.headers
    text = "#{h["x-own"]} #{h["x-open-runtimes-kept"]} #{h["x-open-runtimes-secret"] || "none"}"
    res.text(text, 200, { "X-Open-Runtimes-Log-Id" => "x", "X-Yes": "yes" })
  when "/values"
    context.log("text", 1, true, { "a" => [1, "é"] }, [1, 2], nil)
    res.empty
  when "/binary"
    context.log("\x1b[31mred\x00", "\xff".b)
    $stdout.write("\x1b[31mred\x00\xff\n".b)
    res.empty
  when "/stray"
    Thread.new { raise "stray" }.join rescue nil
    res.text("lives")
  when "/print"
    3.times do
      $stderr.puts req.query["n"]
      sleep 0.0001
    end
    res.empty
  when "/size" then res.text(req.body_binary.bytesize)
  when "/fork" then forked(context, req.query["end"])
  else res.text("not found", 404)
  end
end
