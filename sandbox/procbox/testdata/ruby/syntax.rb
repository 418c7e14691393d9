def main(context)
  context.res.text("never"
end
